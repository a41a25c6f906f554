from structlog.testing import capture_logs

from rankserve.server.ranking.throttled_log import PERIOD_S, ThrottledLog


def test_each_kind_is_logged_once_a_period_with_what_was_held_back() -> None:
    now = 0.0
    log = ThrottledLog(lambda: now)
    with capture_logs() as logs:
        for _ in range(5):
            log.warning("event", kind="late")
        log.warning("event", kind="model")
        now = PERIOD_S
        log.warning("event", kind="late", version="toy/1")
    assert [(entry["kind"], entry["held_back"]) for entry in logs] == [("late", 0), ("model", 0), ("late", 4)]
    assert logs[-1]["version"] == "toy/1"
