"""Preemption: whether a running request yields to a waiting one, and whether that pays for itself."""

from dataclasses import dataclass

from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.request import Request


@dataclass(slots=True, frozen=True)
class Preemption:
    """When to evict a running request for the one whose turn it is.

    What an evicted request loses is the KV cache that it must get back, by recomputing or by swapping. That
    time is taken from all that run, so it counts once for each of them; a policy that compares what is left
    to do evicts only if the difference exceeds ``margin`` times that cost.

    Attributes:
        enabled: whether to evict at all, but for want of KV blocks.
        margin: how many times its cost an eviction must gain; 0 ignores the cost.
        restart_steps_per_token: time to bring back the KV of one token over the time of a decode step. The
            engine's; see `EngineCapacity`.
    """

    enabled: bool = False
    margin: float = 1.0
    restart_steps_per_token: float = 0.0

    def __post_init__(self) -> None:
        if not self.margin >= 0:
            raise ValueError(f"the preemption margin must be at least 0, got {self.margin}")
        if not self.restart_steps_per_token >= 0:
            raise ValueError(
                f"the cost of a restart must be at least 0 steps a token, got {self.restart_steps_per_token}"
            )

    def may_evict(
        self,
        victim: Request,
        head: Request,
        policy: Policy,
        *,
        head_is_due: bool,
        running: int,
    ) -> bool:
        """Whether `victim` yields to `head`, if that makes room for it.

        Args:
            victim: the running request that is served last.
            head: the waiting request whose turn it is.
            policy: in whose judgement.
            head_is_due: whether starvation prevention put it there.
            running: how many requests run.
        """
        if victim.priority != head.priority:
            return victim.priority > head.priority
        if victim.quantum_left > 0:
            return False
        cost_tokens = running * victim.prefix_tokens * self.restart_steps_per_token
        if head_is_due and victim.waiting_since_s > head.waiting_since_s:
            # Only one that overtook it. Where everybody is due, evicting each other would gain nothing.
            return True
        return policy.prefers(head, victim, self.margin * cost_tokens)
