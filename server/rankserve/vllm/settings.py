"""What can be set of RankServe within vLLM, by environment variables: RANKSERVE_VLLM_MODE for `mode`, etc."""

import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, ValidationError

from rankserve.server.gateway.priority import priority_policy
from rankserve.server.gateway.settings import GatewaySettings
from rankserve.server.scheduling.policies import Policy

PREFIX = "RANKSERVE_VLLM_"
_DEFAULT_POLICY = "bounded_ranking"
_ORACLES = ("sjf", "srtf")


class Mode(StrEnum):
    """What the middleware writes into requests."""

    SCORE = "score"
    PRIORITY = "priority"


class VllmSettings(GatewaySettings):
    """Attributes, beside those of `GatewaySettings`:
    mode: "score" gives scores to `RankedScheduler`, "priority" a priority to vLLM's own queue.
    max_wait_ms: after which a waiting request goes first; None = off. Of the scheduler, as the next three.
    starvation_threshold_steps: likewise in steps; 0 = off.
    fair_share: whether tenants take turns.
    allow_untested: whether to run in versions of vLLM that were not tried.
    tenant_from: whose a request is: "user" takes the body's `user`, "header:NAME" a header; "" nobody's.
    """

    mode: Mode = Mode.SCORE
    max_wait_ms: Annotated[int | None, Field(ge=1)] = None
    starvation_threshold_steps: Annotated[int, Field(ge=0)] = 0
    fair_share: bool = True
    allow_untested: bool = False
    tenant_from: Annotated[str, Field(pattern=r"^(|user|header:[A-Za-z0-9-]+)$")] = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Raises ValueError, which names the variable that is wrong."""
        variables = os.environ if environment is None else environment
        given = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in variables.items()
            if name.startswith(PREFIX) and value
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            variable = PREFIX + str(first["loc"][0]).upper()
            problem = "is no setting" if first["type"] == "extra_forbidden" else first["msg"]
            raise ValueError(f"{variable}: {problem}") from None

    def make_policy(self) -> Policy:
        """That of the scheduler.

        Raises:
            ValueError: there is none of that name, or it needs answers that are not given yet.
        """
        name = self.policy or _DEFAULT_POLICY
        if name in _ORACLES:
            raise ValueError(f"policy {name!r} needs recorded answers, which vLLM's requests have not")
        return self.policy_named(name)

    def middleware_policy(self) -> Policy:
        """That which the middleware's scores are for. Raises ValueError."""
        return priority_policy(self) if self.mode is Mode.PRIORITY else self.make_policy()
