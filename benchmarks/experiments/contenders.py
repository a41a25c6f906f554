"""The policies that are compared, and what tables call them."""

from benchmarks.experiments.runs import Contender

from rankserve.server.scheduling.policies import (
    AgedRanking,
    BoundedRanking,
    Classification,
    CostAware,
    Fcfs,
    Ranking,
    ShortestJobFirst,
    SkipJoinMlfq,
)
from rankserve.server.simulation.setup import SimulationSettings

FCFS = Contender("FCFS", Fcfs())
# Both preempt: without that nothing is ever demoted for another to start.
MLFQ_RECOMPUTE = Contender("MLFQ, recompute", SkipJoinMlfq(), SimulationSettings(preemption="recompute"))
MLFQ = Contender("MLFQ, swap", SkipJoinMlfq(), SimulationSettings(preemption="swap"))
CLASSIFICATION = Contender("classification", Classification())
RANKING = Contender("ranking", Ranking())
AGED = Contender("aged ranking", AgedRanking())
BOUNDED = Contender("bounded ranking", BoundedRanking())
COST_AWARE = Contender("cost-aware", CostAware())
ORACLE = Contender("oracle (SJF)", ShortestJobFirst())

EVERYONE = (FCFS, MLFQ_RECOMPUTE, MLFQ, CLASSIFICATION, RANKING, BOUNDED, AGED, COST_AWARE, ORACLE)
MLFQ_NOTE = (
    "MLFQ preempts, once recomputing what it evicted and once swapping it (128 KiB of KV a token for 8B, 80"
    " on each of four GPUs for 70B, at 25 GB/s); nothing else preempts."
)
