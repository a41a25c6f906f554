"""An engine without a model, for tests: OpenAI's API as vLLM serves it, and faults on demand."""

from rankserve.server.engines.fake.answers import token_numbers
from rankserve.server.engines.fake.engine import FakeEngine
from rankserve.server.engines.fake.faults import Fault, FaultKind, Faults
from rankserve.server.engines.fake.records import RequestRecord
from rankserve.server.engines.fake.settings import FakeEngineSettings
from rankserve.server.engines.fake.thread import FakeEngineThread

__all__ = [
    "FakeEngine",
    "FakeEngineSettings",
    "FakeEngineThread",
    "Fault",
    "FaultKind",
    "Faults",
    "RequestRecord",
    "token_numbers",
]
