"""Which vLLM the scheduler class may run in: its interface is not public, so each version is tried first."""

from collections.abc import Iterable

# Released versions that tests/real_vllm passed with.
TESTED_VERSIONS = ("0.32.0",)
ALLOW_UNTESTED = "RANKSERVE_VLLM_ALLOW_UNTESTED"

_WAY_OUT = (
    "Or use what needs no scheduler class: `--middleware rankserve.vllm.ScoreMiddleware` with"
    " RANKSERVE_VLLM_MODE=priority and vLLM's `--scheduling-policy priority` (docs/engines.md)."
)


class UnsupportedVllmError(RuntimeError):
    """This vLLM is not one that the scheduler class is known to work in."""


def check_version(version: str, *, allow_untested: bool) -> None:
    """Args:
        version: vLLM's own; a local part such as ``+cpu`` does not count.
        allow_untested: whether to go on with versions that were not tried.

    Raises:
        UnsupportedVllmError: says what to do.
    """
    if version.partition("+")[0] in TESTED_VERSIONS or allow_untested:
        return
    raise UnsupportedVllmError(
        f"rankserve.vllm.RankedScheduler was tested with vLLM {', '.join(TESTED_VERSIONS)}, and this is vLLM"
        f" {version}, whose scheduler may differ. Install a tested version, or set {ALLOW_UNTESTED}=1 to try"
        f" it anyway. {_WAY_OUT}"
    )


def check_members(version: str, missing: Iterable[str]) -> None:
    """Raises UnsupportedVllmError if any member of vLLM that the scheduler relies on is missing."""
    names = sorted(missing)
    if names:
        raise UnsupportedVllmError(
            f"rankserve.vllm.RankedScheduler cannot run in vLLM {version}, which lacks or changed what it"
            f" relies on: {', '.join(names)}. Install vLLM {' or '.join(TESTED_VERSIONS)}. {_WAY_OUT}"
        )
