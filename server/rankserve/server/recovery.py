"""From the journal's entries to requests, at the start of the server."""

from collections.abc import Callable, Iterable
from time import monotonic, time

import structlog

from rankserve.server.answer import AnswerText
from rankserve.server.dispatcher import Dispatcher
from rankserve.server.events import Finished
from rankserve.server.journal.codec import decode_outcome
from rankserve.server.journal.store import Entry, JournalError
from rankserve.server.requests import LiveRequest, RequestSpec
from rankserve.server.scheduling.request import Phase, Request

log = structlog.get_logger(__name__)


def recover(
    entries: Iterable[Entry],
    dispatcher: Dispatcher,
    decode: Callable[[bytes], RequestSpec],
    *,
    clock: Callable[[], float] = monotonic,
    wall_clock: Callable[[], float] = time,
) -> None:
    """Gives the dispatcher what an earlier process accepted. Times of acceptance stay what they were.

    Args:
        entries: of the journal, in the order of acceptance.
        dispatcher: of this process; has no requests yet.
        decode: from a request as it was recorded.
        clock: the server's.
        wall_clock: Unix time.

    Raises:
        JournalError: an entry is not what this server writes.
    """
    # Where the server's clock was, or would have been, at Unix time 0.
    now_s = clock()
    epoch_s = now_s - wall_clock()
    ended, unfinished = [], []
    for entry in entries:
        try:
            spec = decode(entry.body)
            if entry.outcome is None:
                unfinished.append(_unfinished(entry, spec, epoch_s, now_s, dispatcher))
            else:
                ended.append(_ended(entry, spec, entry.outcome, epoch_s, now_s))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JournalError(
                f"the journal's entry of request {entry.id!r} cannot be read"
                f" ({type(error).__name__}): it was written by another version of the server, or damaged"
            ) from error
    ended.sort(key=lambda live: live.end_time)
    dispatcher.recover(ended, unfinished)
    if ended or unfinished:
        log.info("journal_recovered", unfinished=len(unfinished), retained=len(ended))


def _unfinished(
    entry: Entry, spec: RequestSpec, epoch_s: float, now_s: float, dispatcher: Dispatcher
) -> LiveRequest:
    answer = AnswerText()
    for first, count, text in entry.pieces:
        if first != answer.tokens:
            raise ValueError(f"token {answer.tokens} is missing")
        answer.append(count, text)
    # A wall clock that was set back meanwhile must not make it come from the future.
    arrival_s = min(entry.accept_time + epoch_s, now_s)
    input_tokens = dispatcher.limits.input_tokens(spec)
    request = Request(
        id=spec.id,
        arrival_s=arrival_s,
        prompt_tokens=input_tokens,
        max_tokens=max(dispatcher.limits.max_tokens(spec, input_tokens), answer.tokens + 1),
        priority=spec.priority,
        tenant=spec.tenant,
        model=dispatcher.limits.model(spec),
        deadline_s=arrival_s + spec.deadline_ms / 1000 if spec.deadline_ms else None,
        replay_output_tokens=spec.replay_output_tokens,
        output_tokens=answer.tokens,
    )
    # Its streams went with the process that had them, so nothing can be concluded from there being none.
    return LiveRequest(
        spec,
        request,
        entry.accept_time,
        [],
        number=entry.number,
        answer=answer,
        outlives_streams=True,
        # Who had tokens was told before that it was queued, and is not told again.
        queued_s=arrival_s if answer.tokens else None,
        told_queued=answer.tokens > 0,
        told_tokens=answer.tokens,
    )


def _ended(entry: Entry, spec: RequestSpec, encoded: str, epoch_s: float, now_s: float) -> LiveRequest:
    outcome = decode_outcome(encoded)
    request = Request(
        id=spec.id,
        arrival_s=entry.accept_time + epoch_s,
        prompt_tokens=outcome.input_tokens if isinstance(outcome, Finished) else 0,
        max_tokens=spec.max_tokens or 0,
        priority=spec.priority,
        tenant=spec.tenant,
        phase=Phase.ENDED,
        output_tokens=outcome.output_tokens,
    )
    if isinstance(outcome, Finished):
        request.score = outcome.score
    live = LiveRequest(
        spec,
        request,
        entry.accept_time,
        [],
        number=entry.number,
        ranker_version=outcome.ranker_version if isinstance(outcome, Finished) else "",
        answer=AnswerText.restore(entry.text, outcome.output_tokens, entry.boundaries),
        outcome=outcome,
        end_time=entry.end_time or entry.accept_time,
        outlives_streams=True,
        told_accepted=True,
        told_queued=isinstance(outcome, Finished) or outcome.output_tokens > 0,
        told_tokens=outcome.output_tokens,
        told_outcome=True,
    )
    live.ended_s = min(live.end_time + epoch_s, now_s)
    return live
