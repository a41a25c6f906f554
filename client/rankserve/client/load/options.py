"""How a load run is made, and how far it is."""

from dataclasses import dataclass

from rankserve.client._config import Retry


@dataclass(slots=True, frozen=True)
class LoadOptions:
    """How to send a workload.

    Attributes:
        replay: ask for exactly the recorded lengths, where the workload has them. The server must allow it.
            Requests without ``max_tokens`` then ask for that of the longest recorded answer.
        result_only: no token events: less traffic. First-token times then come from the server's clock.
        streams: Submit streams to spread the requests over.
        request_timeout_s: give a request up this long after it was sent; the server is told so too.
        total_timeout_s: give up everything this long after the start.
        stats_interval_s: how often to ask the server for its queue depth.
        workload_name: where the prompts came from, for the record.
        retry: send again what a replica could not serve; None: that is a failed request.
        chat: send each prompt as the one turn of a chat, so that the LLM's chat template is applied.
        max_tokens: longest answer to ask for, where the workload does not say.
        temperature: of the sampling; None for the LLM's default.
    """

    replay: bool = True
    result_only: bool = True
    streams: int = 1
    request_timeout_s: float | None = None
    total_timeout_s: float | None = None
    stats_interval_s: float = 0.2
    workload_name: str = ""
    retry: Retry | None = None
    chat: bool = False
    max_tokens: int | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.streams < 1:
            raise ValueError(f"streams must be at least 1, got {self.streams}")
        for name in ("request_timeout_s", "total_timeout_s", "stats_interval_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")


@dataclass(slots=True, frozen=True)
class Progress:
    """How far a run is, at ``elapsed_s`` seconds. ``waiting`` is the server's queue depth."""

    elapsed_s: float
    total: int
    sent: int
    finished: int
    failed: int
    waiting: int
