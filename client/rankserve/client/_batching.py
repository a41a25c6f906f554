"""Many requests in few messages."""

from collections.abc import Iterable

from rankserve.client._convert import request_to_proto
from rankserve.client._types import Request
from rankserve.v1 import scheduler_pb2

# Well under the 4 MiB that a server takes in one message.
MAX_BATCH_REQUESTS = 512
MAX_BATCH_BYTES = 1 << 20

Batch = tuple[list[Request], scheduler_pb2.SubmitRequest]


def batches(
    requests: Iterable[Request],
    *,
    max_requests: int = MAX_BATCH_REQUESTS,
    max_bytes: int = MAX_BATCH_BYTES,
) -> list[Batch]:
    """Packs requests, in their order, into messages of at most so many, and of about so many bytes.

    One that is larger by itself has a message of its own. Raises InvalidRequest if one cannot be sent.
    """
    done: list[Batch] = []
    packed: list[Request] = []
    message, size = scheduler_pb2.SubmitRequest(), 0
    for request in requests:
        added = request_to_proto(request)
        added_bytes = added.ByteSize()
        if packed and (len(packed) >= max_requests or size + added_bytes > max_bytes):
            done.append((packed, message))
            packed, message, size = [], scheduler_pb2.SubmitRequest(), 0
        packed.append(request)
        message.requests.append(added)
        size += added_bytes
    if packed:
        done.append((packed, message))
    return done
