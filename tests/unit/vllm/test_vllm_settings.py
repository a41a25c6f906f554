import subprocess
import sys

import pytest

import rankserve.vllm
from rankserve.server.scheduling.policies import AgedRanking
from rankserve.vllm.middleware import ScoreMiddleware
from rankserve.vllm.settings import Mode, VllmSettings


def test_variables_are_read_by_prefix() -> None:
    settings = VllmSettings.from_environment(
        {
            "RANKSERVE_VLLM_MODE": "priority",
            "RANKSERVE_VLLM_POLICY": "aged_ranking",
            "RANKSERVE_VLLM_AGEING_TOKENS_PER_S": "3.5",
            "RANKSERVE_VLLM_ALLOW_UNTESTED": "1",
            "RANKSERVE_VLLM_RANKER": "",
            "RANKSERVE_POLICY": "fcfs",
            "PATH": "/bin",
        }
    )
    assert settings.mode is Mode.PRIORITY
    assert settings.allow_untested
    assert settings.ranker is None
    assert settings.make_policy() == AgedRanking(3.5)


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("RANKSERVE_VLLM_PLOICY", "fcfs", "is no setting"),
        ("RANKSERVE_VLLM_MODE", "rank", "'score' or 'priority'"),
        ("RANKSERVE_VLLM_MAX_WAIT_MS", "0", "greater than or equal to 1"),
        ("RANKSERVE_VLLM_TENANT_FROM", "cookie", "pattern"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, problem: str) -> None:
    with pytest.raises(ValueError, match=variable) as refused:
        VllmSettings.from_environment({variable: value})
    assert problem in str(refused.value)


def test_the_default_is_that_of_the_server_and_in_priority_mode_one_that_a_number_can_tell() -> None:
    assert VllmSettings().make_policy().name == "bounded_ranking"
    assert VllmSettings(mode=Mode.PRIORITY).middleware_policy().name == "aged_ranking"


def test_policies_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="recorded answers"):
        VllmSettings(policy="sjf").make_policy()
    with pytest.raises(ValueError, match="aged_ranking, ranking, fcfs"):
        VllmSettings(mode=Mode.PRIORITY, policy="bounded_ranking").middleware_policy()
    with pytest.raises(ValueError, match="unknown policy"):
        VllmSettings(policy="best").make_policy()


def test_the_package_has_what_vllm_looks_for_and_nothing_else() -> None:
    assert rankserve.vllm.ScoreMiddleware is ScoreMiddleware
    with pytest.raises(AttributeError, match="no attribute 'Scheduler'"):
        _ = rankserve.vllm.Scheduler


def test_the_engine_needs_no_ranker() -> None:
    program = (
        "import sys, rankserve.vllm.waiting_queue, rankserve.vllm.settings\n"
        "print(sorted({'onnxruntime', 'tokenizers', 'grpc', 'httpx2', 'uvicorn'} & sys.modules.keys()))"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
