from collections.abc import Iterator

import pytest

from rankserve.client.testing import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(answer="one two three") as server:
        yield server
