"""What stands for a score where there is none."""

import math
from collections import deque

from rankserve.server.scheduling.request import Request

_REMEMBERED = 255


class NeutralScore:
    """The median of the scores of late, so that a request without one is neither favoured nor starved.

    Until any request had a score, none is invented: all are equal, which is FCFS.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=_REMEMBERED)

    def observe(self, request: Request) -> None:
        """A request that has a score."""
        self._recent.append((request.score, request.expected_tokens, request.expected_tokens_p90))

    def fill(self, request: Request) -> None:
        """Gives a request the score, and lengths, that are in the middle."""
        if self._recent:
            middle = sorted(self._recent)[len(self._recent) // 2]
            request.score, request.expected_tokens, request.expected_tokens_p90 = middle

    def fill_length(self, request: Request) -> None:
        """Gives a request that has a score the length in the middle, of those that have one."""
        lengths = sorted((p50, p90) for _, p50, p90 in self._recent if p50 < math.inf)
        if lengths:
            request.expected_tokens, request.expected_tokens_p90 = lengths[len(lengths) // 2]
