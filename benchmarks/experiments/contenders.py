"""The policies that are compared, and what tables call them."""

from benchmarks.experiments.runs import Contender

from rankserve.server.scheduling.policies import (
    AgedRanking,
    Classification,
    CostAware,
    Fcfs,
    Ranking,
    ShortestJobFirst,
    SkipJoinMlfq,
)
from rankserve.server.simulation.setup import SimulationSettings

FCFS = Contender("FCFS", Fcfs())
# It cannot work otherwise: without preemption nothing is ever demoted for another to start.
MLFQ = Contender("MLFQ", SkipJoinMlfq(), SimulationSettings(preemption="recompute"))
CLASSIFICATION = Contender("classification", Classification())
RANKING = Contender("ranking", Ranking())
AGED = Contender("aged ranking", AgedRanking())
COST_AWARE = Contender("cost-aware", CostAware())
ORACLE = Contender("oracle (SJF)", ShortestJobFirst())

EVERYONE = (FCFS, MLFQ, CLASSIFICATION, RANKING, AGED, COST_AWARE, ORACLE)
