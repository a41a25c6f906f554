"""How an ended request is told apart from the journal's point of view: its terminal event as JSON."""

import json
from dataclasses import fields

from rankserve.server.errors import restore
from rankserve.server.events import Failed, Finished, Timing

_FINISHED = tuple(field.name for field in fields(Finished) if field.name not in ("text", "timing"))
_TIMING = tuple(field.name for field in fields(Timing))


def encode_outcome(outcome: Finished | Failed) -> str:
    """Without its text, which is kept beside it."""
    if isinstance(outcome, Finished):
        values = {name: getattr(outcome, name) for name in _FINISHED}
        values["timing"] = {name: getattr(outcome.timing, name) for name in _TIMING}
        values["whole"] = bool(outcome.text)
        return json.dumps({"finished": values})
    return json.dumps(
        {
            "failed": {
                "request_id": outcome.request_id,
                "kind": type(outcome.error).__name__,
                "message": str(outcome.error),
                "output_tokens": outcome.output_tokens,
            }
        }
    )


def decode_outcome(encoded: str, text: str) -> Finished | Failed:
    """The terminal event, with the answer's text where it had it.

    Raises:
        ValueError, KeyError, TypeError: it was not made by `encode_outcome`.
    """
    kinds = json.loads(encoded)
    if "finished" in kinds:
        values = kinds["finished"]
        values["text"] = text if values.pop("whole") else ""
        values["timing"] = Timing(**values["timing"])
        return Finished(**values)
    values = kinds["failed"]
    return Failed(values["request_id"], restore(values["kind"], values["message"]), values["output_tokens"])
