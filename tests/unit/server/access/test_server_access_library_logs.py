"""What gRPC and asyncio would log of a call, without the call's values."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from rankserve.server.access.library_logs import keep_values_out_of_library_logs

SECRET = "correct-horse-battery-staple"


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("grpc", "uvicorn", "asyncio")]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate


@pytest.mark.parametrize("library", ["grpc._cython.cygrpc", "uvicorn.error"])
async def test_exceptions_are_logged_by_type_and_place(
    caplog: pytest.LogCaptureFixture, library: str
) -> None:
    keep_values_out_of_library_logs(asyncio.get_running_loop())
    with capture_logs() as logs:
        try:
            raise ValueError(SECRET)
        except ValueError:
            logging.getLogger(library).exception("Invalid encoding on %s", SECRET)
    [line] = logs
    assert line["library"] == library
    assert line["message"] == "Invalid encoding on %s"
    assert line["log_level"] == "error"
    assert line["error"] == "ValueError"
    assert len(line["raised_at"]) == 1
    assert "test_exceptions_are_logged" in line["raised_at"][0]
    assert SECRET not in repr(logs) + caplog.text


async def test_a_task_that_failed_is_logged_by_type(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    keep_values_out_of_library_logs(loop)

    async def fail(secret: str) -> None:
        raise ValueError(secret)

    with capture_logs() as logs:
        task = loop.create_task(fail(SECRET))
        await asyncio.wait({task})
        del task
        await asyncio.sleep(0)
        logging.getLogger("asyncio").error("as it is\n%s", SECRET)
    assert [line["message"] for line in logs] == ["Task exception was never retrieved", "as it is\n%s"]
    assert logs[0]["error"] == "ValueError"
    assert SECRET not in repr(logs) + caplog.text


async def test_chatter_is_left_out() -> None:
    keep_values_out_of_library_logs(asyncio.get_running_loop())
    with capture_logs() as logs:
        logging.getLogger("grpc").info("hello")
        logging.getLogger("asyncio").debug("hello")
    assert logs == []


async def test_a_trace_of_grpc_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_TRACE", "http")
    with capture_logs() as logs:
        keep_values_out_of_library_logs(asyncio.get_running_loop())
    assert [line["event"] for line in logs] == ["grpc_trace_prints_metadata"]
