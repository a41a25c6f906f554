from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Protocol

import pytest

from rankserve.client.testing import FakeServer
from rankserve.records.results import ResultRecord, Run, RunHeader

# These need the extra `load`; the others must pass on a base install.
if not all(map(find_spec, ("numpy", "scipy", "matplotlib", "jinja2"))):
    collect_ignore = [
        "test_client_cli.py",
        "test_client_columns.py",
        "test_client_degraded.py",
        "test_client_metrics.py",
        "test_client_report.py",
    ]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(answer="one two three") as server:
        yield server


class MakeRun(Protocol):
    def __call__(self, policy: str, order: list[int], **header: Any) -> Run: ...


@pytest.fixture
def make_run() -> MakeRun:
    """The paper's worked example: one slot, 1 s/token, answers of 10, 2 and 1 tokens, all sent at 0."""

    def make(policy: str, order: list[int], **header: Any) -> Run:
        results, now_s = [], 0.0
        for tokens in order:
            start_s, now_s = now_s, now_s + tokens
            results.append(
                ResultRecord(
                    id=f"r{tokens}",
                    outcome="finished",
                    sent_s=0.0,
                    end_s=now_s,
                    output_tokens=tokens,
                    other_lengths=(tokens + 1, tokens + 3),
                    prompt_chars=20 - tokens,
                    score=-float(tokens),
                    server_scheduled_s=start_s,
                    server_first_token_s=start_s + 1,
                    server_end_s=now_s,
                    max_token_gap_s=1.0 if tokens > 1 else 0.0,
                )
            )
        depth = ((0.0, 2), (1.0, 1), (2.0, 0))
        values = {"engine": "one slot", "queue_depth": depth, "workload": "worked example", **header}
        return Run(RunHeader(policy=policy, **values), tuple(results))

    return make
