"""What a run's results say: latencies, Kendall's tau, improvement over FCFS, and reports of it all.

All times are in the LLM's own seconds: wall-clock seconds times the run's ``time_scale``.
Needs the extra ``load``.
"""

from rankserve.client._extras import require

require("load", "numpy", "scipy", "matplotlib", "jinja2")

from rankserve.client.evaluation.columns import (  # noqa: E402 - the check above must come first
    ColumnarRun,
    ResultColumns,
    as_columns,
    read_columns,
)
from rankserve.client.evaluation.comparison import (  # noqa: E402
    Comparison,
    compare,
    improvement_ratio,
    improvement_ratio_normalised,
    improvement_ratio_p99,
)
from rankserve.client.evaluation.degraded import DegradedScores, degraded_scores  # noqa: E402
from rankserve.client.evaluation.metrics import RunMetrics, evaluate  # noqa: E402
from rankserve.client.evaluation.report import FORMATS, Report, build_report, write_report  # noqa: E402
from rankserve.client.evaluation.summary import Summary  # noqa: E402
from rankserve.client.evaluation.tau import (  # noqa: E402
    kendall_tau,
    kendall_tau_ceiling,
    kendall_tau_prompt_length,
)

__all__ = [
    "FORMATS",
    "ColumnarRun",
    "Comparison",
    "DegradedScores",
    "Report",
    "ResultColumns",
    "RunMetrics",
    "Summary",
    "as_columns",
    "build_report",
    "compare",
    "degraded_scores",
    "evaluate",
    "improvement_ratio",
    "improvement_ratio_normalised",
    "improvement_ratio_p99",
    "kendall_tau",
    "kendall_tau_ceiling",
    "kendall_tau_prompt_length",
    "read_columns",
    "write_report",
]
