"""What the client's package shows, and what it must not drag in."""

import subprocess
import sys

import rankserve.client

HEAVY = ["torch", "transformers", "onnxruntime", "numpy", "scipy", "matplotlib", "jinja2", "rankserve.server"]


def test_the_public_names_are_pinned() -> None:
    assert rankserve.client.__all__ == [
        "Aborted",
        "Accepted",
        "Activation",
        "AlreadyExists",
        "AsyncResilientSubmitStream",
        "AsyncSchedulerClient",
        "AsyncSubmitStream",
        "Cancelled",
        "ChatMessage",
        "Completion",
        "ConnectionFailed",
        "DeadlineExceeded",
        "Draining",
        "EndpointStats",
        "Event",
        "Failed",
        "FailedPrecondition",
        "FieldViolation",
        "FinishReason",
        "Finished",
        "InternalError",
        "InvalidRequest",
        "Limits",
        "NotFound",
        "PermissionDenied",
        "PolicyChange",
        "PromptScore",
        "Queued",
        "QuotaViolation",
        "RankServeError",
        "RankerAccuracy",
        "RankerVersionInfo",
        "Request",
        "RequestOptions",
        "RequestState",
        "RequestStatus",
        "RequestSummary",
        "ResilientSubmitStream",
        "ResourceExhausted",
        "Retry",
        "SchedulerClient",
        "Scores",
        "ServerState",
        "Stats",
        "SubmitStream",
        "Timeout",
        "Timing",
        "TlsConfig",
        "Tokens",
        "Unauthenticated",
        "Unavailable",
        "Unimplemented",
    ]
    for name in rankserve.client.__all__:
        assert hasattr(rankserve.client, name)


def test_both_clients_have_the_same_surface() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(rankserve.client.AsyncSchedulerClient) == public(rankserve.client.SchedulerClient)
    assert public(rankserve.client.AsyncSubmitStream) == public(rankserve.client.SubmitStream)
    assert public(rankserve.client.AsyncResilientSubmitStream) == public(
        rankserve.client.ResilientSubmitStream
    )
    assert public(rankserve.client.SubmitStream) == public(rankserve.client.ResilientSubmitStream)


def test_importing_the_client_loads_only_what_a_caller_needs() -> None:
    code = (
        "import sys, rankserve.client, rankserve.client.testing, rankserve.client.load\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
