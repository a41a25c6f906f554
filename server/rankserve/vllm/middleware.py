"""The middleware for vLLM's `--middleware`: scores prompts in the API's process."""

import math
import os
from typing import Any

from starlette.types import ASGIApp

from rankserve.server.gateway.bodies import Bodies
from rankserve.server.gateway.middleware import Headers, Marker, ScoringMiddleware
from rankserve.server.gateway.priority import PriorityMarker
from rankserve.server.gateway.scorer import PromptScorer
from rankserve.server.ranking.ranker import PromptScore
from rankserve.vllm.marks import EXPECTED_TOKENS, EXPECTED_TOKENS_P90, PREFIX, SCORE, TENANT, read_marks
from rankserve.vllm.settings import Mode, VllmSettings

_PRIORITY_HEADER = b"x-vllm-priority"


class ScoreMarker(Marker):
    """Puts scores where `RankedScheduler` finds them.

    Args:
        tenant_from: as in `VllmSettings`.
        trust_clients: whether the client's own marks and priority stay. If not, they are taken out.
    """

    def __init__(self, *, tenant_from: str = "", trust_clients: bool = False) -> None:
        self._tenant_from = tenant_from
        self._trust_clients = trust_clients

    def needs_score(self, body: dict[str, Any]) -> bool:
        given = body.get("vllm_xargs")
        if given is None:
            return True
        return isinstance(given, dict) and not (self._trust_clients and read_marks(given).score is not None)

    def mark(self, body: dict[str, Any], headers: Headers, score: PromptScore | None) -> Headers:
        given = body.get("vllm_xargs")
        if given is not None and not isinstance(given, dict):
            # For vLLM to refuse.
            return headers
        marks: dict[str, Any] = dict(given or {})
        if not self._trust_clients:
            marks = {name: value for name, value in marks.items() if not name.startswith(PREFIX)}
            body.pop("priority", None)
            headers = [(name, value) for name, value in headers if name.lower() != _PRIORITY_HEADER]
        if score is not None:
            marks[SCORE] = score.score
            for name, tokens in (
                (EXPECTED_TOKENS, score.expected_tokens_p50),
                (EXPECTED_TOKENS_P90, score.expected_tokens_p90),
            ):
                if tokens is not None and math.isfinite(tokens):
                    marks[name] = tokens
        tenant = self._tenant(body, headers)
        if tenant:
            marks[TENANT] = tenant
        if marks:
            body["vllm_xargs"] = marks
        else:
            body.pop("vllm_xargs", None)
        return headers

    def _tenant(self, body: dict[str, Any], headers: Headers) -> str:
        if self._tenant_from == "user":
            user = body.get("user")
            return user if isinstance(user, str) else ""
        wanted = self._tenant_from.partition(":")[2].lower().encode()
        found = (value for name, value in headers if name.lower() == wanted)
        return next(found, b"").decode("latin-1") if wanted else ""


class ScoreMiddleware(ScoringMiddleware):
    """Scores the prompts of completions, chats and responses; see `VllmSettings` for what can be set.

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
