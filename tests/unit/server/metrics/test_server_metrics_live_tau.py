"""Live tau: of which requests, with which sign, over which window."""

import pytest
from support.ended_requests import fail, finish, live_request

from rankserve.server.metrics import live_tau
from rankserve.server.metrics.live_tau import LiveTau


def end(tau: LiveTau, score: float, output_tokens: int, version: str = "toy/1", reason: str = "stop") -> None:
    tau.ended(finish(live_request(score=score), output_tokens=output_tokens, version=version, reason=reason))


def test_a_ranker_whose_high_scores_finish_early_is_positive() -> None:
    tau = LiveTau()
    for score, output_tokens in ((3.0, 10), (2.0, 20), (1.0, 30)):
        end(tau, score, output_tokens)
    assert tau.values() == [("toy/1", 1.0, 3)]


def test_only_finished_requests_that_a_ranker_scored_count() -> None:
    tau = LiveTau()
    end(tau, 0.0, 10, version="")
    tau.ended(fail(live_request(score=1.0)))
    assert tau.values() == []
    end(tau, 1.0, 10)
    assert tau.values() == [("toy/1", None, 1)]


def test_the_window_holds_the_last_requests_of_each_version() -> None:
    tau = LiveTau(window=4)
    for n in range(10):
        end(tau, score=float(n), output_tokens=n + 1)
    assert tau.values() == [("toy/1", -1.0, 4)]
    for n in range(4):
        end(tau, score=float(-n), output_tokens=n + 1)
    end(tau, 1.0, 1, version="toy/2")
    assert tau.values() == [("toy/2", None, 1), ("toy/1", 1.0, 4)]


def test_versions_that_nobody_uses_are_forgotten() -> None:
    tau = LiveTau()
    for n in range(20):
        end(tau, 1.0, 5, version=f"toy/{n}")
    assert [version for version, _, _ in tau.values()] == ["toy/19", "toy/18", "toy/17", "toy/16"]


def test_answers_cut_at_the_same_length_are_ties() -> None:
    tau, without = LiveTau(), LiveTau()
    for score, output_tokens in ((5.0, 10), (4.0, 20)):
        end(tau, score, output_tokens)
        end(without, score, output_tokens)
    end(without, 3.0, 100, reason="length")
    for score in (3.0, 2.0):
        end(tau, score, 100, reason="length")
    # Five of six pairs in order, one tied in length: 5 / sqrt(6 x 5).
    assert tau.values()[0][1] == pytest.approx(5 / 30**0.5)
    assert without.values()[0][1] == 1.0


def test_it_is_computed_once_for_each_new_result(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(x: object, y: object) -> float:
        calls.append(x)
        return 0.5

    monkeypatch.setattr(live_tau, "kendall_tau_b", counted)
    tau = LiveTau()
    for n in range(3):
        end(tau, float(n), n)
    assert [tau.values() for _ in range(3)] == [[("toy/1", 0.5, 3)]] * 3
    assert len(calls) == 1
    end(tau, 4.0, 4)
    tau.values()
    assert len(calls) == 2


def test_a_window_without_an_order_is_refused() -> None:
    with pytest.raises(ValueError, match="2 or more"):
        LiveTau(window=1)
