"""The middleware for vLLM's `--middleware`: scores prompts in the API's process."""

import math
import os
from typing import Any

from starlette.types import ASGIApp

from rankserve.server.gateway.bodies import Bodies
from rankserve.server.gateway.json_bodies import Fields
from rankserve.server.gateway.middleware import Headers, Marker, ScoringMiddleware
from rankserve.server.gateway.priority import PriorityMarker
from rankserve.server.gateway.scorer import PromptScorer
from rankserve.server.ranking.ranker import PromptScore
from rankserve.vllm.marks import EXPECTED_TOKENS, EXPECTED_TOKENS_P90, PREFIX, SCORE, TENANT, read_marks
from rankserve.vllm.settings import Mode, VllmSettings


class ScoreMarker(Marker):
    """Puts scores where `RankedScheduler` finds them.

    Args:
        tenant_from: as in `VllmSettings`.
        trust_clients: whether the client's own marks and priority stay. If not, they are taken out.
    """

    def __init__(self, *, tenant_from: str = "", trust_clients: bool = False) -> None:
        super().__init__(trust_clients=trust_clients)
        self._tenant_from = tenant_from

    def needs_score(self, body: dict[str, Any]) -> bool:
        given = body.get("vllm_xargs")
        if given is None:
            return True
        return isinstance(given, dict) and not (self.trust_clients and read_marks(given).score is not None)

    def mark(
        self, body: dict[str, Any], headers: Headers, score: PromptScore | None
    ) -> tuple[Fields, Headers]:
        fields: dict[str, Any] = {} if self.trust_clients else {"priority": None}
        given = body.get("vllm_xargs")
        # What is no object is for vLLM to refuse.
        if given is None or isinstance(given, dict):
            fields["vllm_xargs"] = self._marks(given or {}, score, self._tenant(body, headers)) or None
        return fields, self.unmarked(headers)

    def _marks(self, given: dict[str, Any], score: PromptScore | None, tenant: str) -> dict[str, Any]:
        marks = {
            name: value for name, value in given.items() if self.trust_clients or not name.startswith(PREFIX)
        }
        if score is not None:
            marks[SCORE] = score.score
            lengths = {
                EXPECTED_TOKENS: score.expected_tokens_p50,
                EXPECTED_TOKENS_P90: score.expected_tokens_p90,
            }
            marks |= {
                name: tokens
                for name, tokens in lengths.items()
                if tokens is not None and math.isfinite(tokens)
            }
        if tenant:
            marks[TENANT] = tenant
        return marks

    def _tenant(self, body: dict[str, Any], headers: Headers) -> str:
        if self._tenant_from == "user":
            user = body.get("user")
            return user if isinstance(user, str) else ""
        wanted = self._tenant_from.partition(":")[2].lower().encode()
        found = (value for name, value in headers if name.lower() == wanted)
        return next(found, b"").decode("latin-1") if wanted else ""


class ScoreMiddleware(ScoringMiddleware):
    """Scores prompts in vLLM's server; see `VllmSettings` for what can be set.

    Raises:
        ValueError: names the variable that is wrong.
    """

    def __init__(self, application: ASGIApp | None = None, *, app: ASGIApp | None = None) -> None:
        # Starlette passes the application as `app`.
        behind = application if application is not None else app
        if behind is None:
            raise ValueError("ScoreMiddleware needs an application behind it")
        # Some builds of ONNX Runtime report usage to their maker, over the network.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        settings = VllmSettings.from_environment()
        policy = settings.middleware_policy()
        marker: Marker = (
            PriorityMarker(policy, trust_clients=settings.trust_clients)
            if settings.mode is Mode.PRIORITY
            else ScoreMarker(tenant_from=settings.tenant_from, trust_clients=settings.trust_clients)
        )
        bodies = Bodies(settings.max_body_bytes, settings.max_total_body_bytes, settings.body_timeout_s)
        super().__init__(behind, PromptScorer(settings, policy), marker, bodies)
