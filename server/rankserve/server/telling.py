"""What the streams of a request are told. Call these once what they tell is recorded (`Journal.then`)."""

from rankserve.server.errors import InvalidRequest, ServerDraining
from rankserve.server.events import Accepted, EventStream, Failed, Finished, Queued
from rankserve.server.requests import LiveRequest


def tell_accepted(live: LiveRequest) -> None:
    live.told_accepted = True
    for stream in live.streams:
        stream.put(Accepted(live.spec.id, live.accept_time))


def tell_queued(live: LiveRequest, event: Queued) -> None:
    live.told_queued = True
    for stream in live.streams:
        stream.put(event)


def tell_tokens(produced: list[tuple[LiveRequest, int, int, str]]) -> None:
    """Of many requests, each with its first new token, how many there are, and their text."""
    for live, first, count, text in produced:
        live.told_tokens = first + count
        if not live.spec.result_only:
            for stream in live.streams:
                stream.put_tokens(live.spec.id, first, count, text)


def tell_outcome(live: LiveRequest, outcome: Finished | Failed) -> None:
    """Nothing follows."""
    live.told_outcome = True
    for stream in live.streams:
        stream.put(outcome)
    live.streams.clear()


def tell_left(live: LiveRequest) -> None:
    """The request goes on after this process; nothing more is told by it."""
    for stream in live.streams:
        stream.leave(live.spec.id, ServerDraining())
    live.streams.clear()


def tell_so_far(live: LiveRequest, stream: EventStream, queued: Queued, offset: int) -> None:
    """Tells a stream what others have been told.

    Args:
        live: the request.
        stream: who wants to know.
        queued: its place by now.
        offset: tokens that the stream has already.

    Raises:
        InvalidRequest: there is no token at which the answer could go on; nothing was told.
    """
    missing = 0 if live.spec.result_only else live.told_tokens - offset
    try:
        text = live.answer.between(offset, live.told_tokens) if missing else ""
    except ValueError:
        raise InvalidRequest("offset", "must be 0, or where a tokens event ended") from None
    if missing < 0:
        raise InvalidRequest("offset", f"only {live.told_tokens} tokens of the answer were sent")
    if live.told_accepted:
        stream.put(Accepted(live.spec.id, live.accept_time))
    if live.told_queued:
        stream.put(queued)
    if missing:
        stream.put_tokens(live.spec.id, offset, missing, text)
    if live.told_outcome and live.outcome is not None:
        stream.put(live.outcome)
