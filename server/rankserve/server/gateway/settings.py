"""What can be set of everything that scores requests on their way to an engine."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rankserve.server.ranking.ranker import RankerSettings
from rankserve.server.scheduling.policies import AgedRanking, Policy, make_policy

_CPU = "CPUExecutionProvider"


class GatewaySettings(BaseModel):
    """Attributes:
    repository: folder of ranker versions; None for the one that ships with the package.
    ranker: name of the ranker; None for the active one, or the only one there is.
    ranker_version: of it; None for the newest usable one.
    ranker_threads: of the machine for one run of the model.
    ranker_timeout_ms: after this a request goes on with a neutral score.
    ranker_provider: ONNX Runtime execution provider.
    policy: whose order is kept; "" for the usual one.
    ageing_tokens_per_s: of policy aged_ranking.
    trust_clients: whether what clients say of their own order counts: `priority` as a band, and marks.
    max_body_bytes: of one request.
    max_total_body_bytes: of all requests that are being read or scored at a time.
    body_timeout_s: for a request to arrive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    repository: Path | None = None
    ranker: Annotated[str | None, Field(min_length=1)] = None
    ranker_version: Annotated[int | None, Field(ge=1)] = None
    ranker_threads: Annotated[int, Field(ge=1, le=1024)] = 1
    ranker_timeout_ms: Annotated[float, Field(gt=0)] = 2000.0
    ranker_provider: Annotated[str, Field(min_length=1)] = _CPU
    policy: str = ""
    ageing_tokens_per_s: Annotated[float, Field(ge=0)] = 10.0
    trust_clients: bool = False
    max_body_bytes: Annotated[int, Field(ge=1)] = 32 << 20
    max_total_body_bytes: Annotated[int, Field(ge=1)] = 256 << 20
    body_timeout_s: Annotated[float, Field(gt=0)] = 30.0

    @property
    def ranker_settings(self) -> RankerSettings:
        return RankerSettings(
            providers=tuple(dict.fromkeys((self.ranker_provider, _CPU))),
            threads=self.ranker_threads,
            timeout_ms=self.ranker_timeout_ms,
            require_provider=self.ranker_provider != _CPU,
        )

    def policy_named(self, name: str) -> Policy:
        """Raises UnknownPolicyError."""
        return AgedRanking(self.ageing_tokens_per_s) if name == "aged_ranking" else make_policy(name)
