"""How many KV blocks admission sets aside for an answer that is still to come."""

import math
from enum import StrEnum

from rankserve.server.scheduling.request import Request


class KvReservation(StrEnum):
    """What admission expects of an answer's length.

    Attributes:
        NONE: nothing: the prefix must fit, and what grows too large is preempted (vLLM's way).
        PREDICTED: the ranker's calibrated 90th percentile, `max_tokens` where there is none.
        MAX: `max_tokens`: nothing is ever preempted for want of KV blocks.
    """

    NONE = "none"
    PREDICTED = "predicted"
    MAX = "max"

    def answer_tokens(self, request: Request) -> int:
        """Tokens of the whole answer to hold blocks for."""
        if self is KvReservation.MAX:
            return request.max_tokens
        if self is KvReservation.PREDICTED:
            return math.ceil(min(request.expected_tokens_p90, request.max_tokens))
        return 0
