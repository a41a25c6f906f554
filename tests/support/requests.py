"""Scheduler requests and simulated LLMs for tests."""

from rankserve.server.engines.simulated.linear_fit import LinearFit
from rankserve.server.engines.simulated.profiles import Profile
from rankserve.server.scheduling.request import Request


def make_request(identifier: str, **fields: object) -> Request:
    """A request of 16 prompt tokens that arrived at 0 and may answer with 100 tokens."""
    values: dict[str, object] = {"arrival_s": 0.0, "prompt_tokens": 16, "max_tokens": 100, **fields}
    return Request(id=identifier, **values)  # type: ignore[arg-type]


def make_profile(**fields: object) -> Profile:
    """An LLM whose every step takes one second, whatever is in it."""
    coefficients: dict[str, object] = {
        "base_ms": 1000.0,
        "per_prefill_token_ms": 0.0,
        "per_decode_sequence_ms": 0.0,
        "per_context_token_ms": 0.0,
    }
    coefficients |= {name: fields.pop(name) for name in list(fields) if name in coefficients}
    values: dict[str, object] = {
        "name": "test",
        "step_times": LinearFit(**coefficients).step_times(),  # type: ignore[arg-type]
        "kv_blocks": 1000,
        "max_model_len": 8000,
        "max_sequences": 4,
        "max_batched_tokens": 2048,
        **fields,
    }
    return Profile(**values)  # type: ignore[arg-type]
