import pytest

from rankserve.vllm.versions import TESTED_VERSIONS, UnsupportedVllmError, check_members, check_version


@pytest.mark.parametrize("version", [TESTED_VERSIONS[0], f"{TESTED_VERSIONS[0]}+cpu"])
def test_tested_versions_are_let_in(version: str) -> None:
    check_version(version, allow_untested=False)


@pytest.mark.parametrize("version", ["0.33.0", "0.32.1", "0.3", "dev"])
def test_others_are_refused_with_what_to_do(version: str) -> None:
    with pytest.raises(UnsupportedVllmError) as refused:
        check_version(version, allow_untested=False)
    for part in (
        version,
        TESTED_VERSIONS[0],
        "RANKSERVE_VLLM_ALLOW_UNTESTED=1",
        "--scheduling-policy priority",
    ):
        assert part in str(refused.value)


def test_others_may_be_tried() -> None:
    check_version("0.33.0", allow_untested=True)


def test_missing_members_are_named() -> None:
    check_members("0.32.0", [])
    with pytest.raises(UnsupportedVllmError, match=r"relies on: RequestQueue\.new, Scheduler\.old"):
        check_members("0.32.0", ["Scheduler.old", "RequestQueue.new"])
