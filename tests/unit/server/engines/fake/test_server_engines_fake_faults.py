"""Faults: for whom, how often, as set at any time; and what cannot be set."""

from typing import Any

import pytest

from rankserve.server.engines.fake import FakeEngineSettings, Faults
from rankserve.server.engines.fake.faults import FAULT_KINDS, FaultKind, parse_probabilities


def drawn(faults: Faults, requests: int) -> list[str | None]:
    chosen = [faults.draw() for _ in range(requests)]
    return [None if fault is None else fault.kind for fault in chosen]


def test_nothing_goes_wrong_unless_asked_for() -> None:
    assert drawn(Faults(), 1000) == [None] * 1000


def test_every_kind_is_as_probable_as_set() -> None:
    kinds = drawn(Faults(3, dict.fromkeys(FAULT_KINDS, 0.1)), 20_000)
    assert None not in kinds
    for kind in FAULT_KINDS:
        assert kinds.count(kind) == pytest.approx(2000, rel=0.15)


def test_the_same_seed_chooses_the_same_requests() -> None:
    probabilities: dict[FaultKind, float] = {"error": 0.2, "cut": 0.2}
    first = drawn(Faults(1, probabilities), 200)
    assert drawn(Faults(1, probabilities), 200) == first
    assert drawn(Faults(2, probabilities), 200) != first


def test_the_next_requests_meet_it_whatever_the_probability() -> None:
    faults = Faults()
    faults.set("hang", next_requests=1)
    faults.set("cut", next_requests=2)
    assert drawn(faults, 5) == ["hang", "cut", "cut", None, None]
    assert faults.injected == {"hang": 1, "cut": 2}


def test_clearing_ends_all() -> None:
    faults = Faults(0, {"error": 1.0})
    assert drawn(faults, 2) == ["error", "error"]
    faults.clear()
    assert drawn(faults, 2) == [None, None]


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("error", {"probability": 1.5}, "probability of error"),
        ("error", {"probability": float("nan")}, "probability of error"),
        ("error", {"next_requests": -1}, "must not be negative"),
        ("cut", {"after_tokens": -1}, "must not be negative"),
        ("slow", {"factor": 0}, "factor"),
        ("overloaded", {"status": 500}, "429 or 503"),
        ("nonsense", {}, "there is no fault"),
        ("cut", {"probability": 0.6}, "at most 1 together"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    kind: FaultKind, arguments: dict[str, Any], message: str
) -> None:
    faults = Faults(0, {"hang": 0.5})
    before = faults.to_json()
    with pytest.raises(ValueError, match=message):
        faults.set(kind, **arguments)
    with pytest.raises(ValueError, match=message):
        faults.set_all({"no_done": {"probability": 0.1}, kind: arguments})
    assert faults.to_json() == before


def test_probabilities_of_the_command_line() -> None:
    assert parse_probabilities("") == {}
    assert parse_probabilities("error=0.1, cut=0.05") == {"error": 0.1, "cut": 0.05}
    with pytest.raises(ValueError, match="there is no fault 'fire'"):
        parse_probabilities("fire=1")
    with pytest.raises(ValueError, match="must be a number"):
        parse_probabilities("cut")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ()}, "models"),
        ({"models": ("",)}, "models"),
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"itl_s": -1.0}, "itl_s"),
        ({"ttft_s": float("nan")}, "ttft_s"),
        ({"mean_output_tokens": 0.0}, "mean_output_tokens"),
        ({"port": 70000}, "port"),
        ({"kv_tokens": 100}, "max_model_len"),
        ({"scheduling": "lifo"}, "fcfs or priority"),
        ({"faults": {"error": 0.7, "cut": 0.7}}, "at most 1"),
        ({"faults": {"fire": 0.7}}, "there is no fault"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FakeEngineSettings(**settings)
