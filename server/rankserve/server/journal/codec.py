"""How the journal keeps an ended request: its terminal event as JSON."""

import orjson

from rankserve.server.errors import restore
from rankserve.server.events import Failed, Finished, Timing


def encode_outcome(outcome: Finished | Failed) -> bytes:
    if isinstance(outcome, Finished):
        return orjson.dumps({"finished": outcome})
    error = outcome.error
    return orjson.dumps(
        {
            "failed": {
                "request_id": outcome.request_id,
                "kind": type(error).__name__,
                "message": str(error),
                "output_tokens": outcome.output_tokens,
            }
        }
    )


def decode_outcome(encoded: str) -> Finished | Failed:
    """The terminal event.

    Raises:
        ValueError, KeyError, TypeError: it was not made by `encode_outcome`.
    """
    kinds = orjson.loads(encoded)
    if "finished" in kinds:
        values = kinds["finished"]
        values["timing"] = Timing(**values["timing"])
        return Finished(**values)
    values = kinds["failed"]
    return Failed(values["request_id"], restore(values["kind"], values["message"]), values["output_tokens"])
