"""All that a scheduler can be set to, for hypothesis."""

import hypothesis.strategies as st

from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.fcfs_bound import FcfsBoundSettings
from rankserve.server.scheduling.policies import (
    BUILT_IN,
    AgedRanking,
    BoundedRanking,
    Classification,
    CostAware,
    Policy,
    SkipJoinMlfq,
)
from rankserve.server.scheduling.starvation import StarvationSettings

BOUNDS = st.just(FcfsBoundSettings()) | st.builds(
    FcfsBoundSettings,
    share=st.sampled_from([0.0, 0.3, 0.98, 2.0]),
    forgetting=st.sampled_from([0.0, 0.05, 1.0]),
    express_share=st.sampled_from([0.0, 0.2, 3.0]),
    express_size=st.sampled_from([0.0, 1 / 3, 5.0]),
    ageing=st.sampled_from([0.0, 0.15, 2.0]),
)

_WITH_PARAMETERS: dict[str, st.SearchStrategy[Policy]] = {
    "bounded_ranking": st.builds(BoundedRanking, BOUNDS),
    "aged_ranking": st.builds(AgedRanking, st.sampled_from([0.0, 10.0, 300.0])),
    "classification": st.builds(Classification, st.sampled_from([1.0, 10.0, 100.0])),
    "cost_aware": st.builds(CostAware, st.sampled_from([0.0, 1.0, 50.0])),
    "mlfq": st.builds(SkipJoinMlfq, st.integers(1, 16), st.integers(1, 8), st.sampled_from([1, 8, 64])),
}

# Fractions that floats hold exactly: what is charged in one sum is then what is charged token by token.
_WEIGHTS = st.sampled_from([0.0, 0.25, 1.0, 2.0, 5.5])
FAIR_SHARES = st.builds(FairShare, st.booleans(), _WEIGHTS, _WEIGHTS) | st.just(FairShare())


def policies(name: str) -> st.SearchStrategy[Policy]:
    """A policy with its default parameters and with others."""
    return st.builds(BUILT_IN[name]) | _WITH_PARAMETERS.get(name, st.builds(BUILT_IN[name]))


ANY_POLICY = st.sampled_from(sorted(BUILT_IN)).flatmap(policies)


def starvation_settings(steps: list[int], seconds: list[float]) -> st.SearchStrategy[StarvationSettings]:
    """Bounds of so many steps and seconds, or none."""
    return st.builds(
        StarvationSettings,
        threshold_steps=st.sampled_from([0, 0, *steps]),
        quantum_steps=st.sampled_from([1, 3, 10, 50]),
        max_wait_s=st.sampled_from([None, None, *seconds]),
    )
