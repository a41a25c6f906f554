from collections.abc import Iterator

import pytest

from rankserve.trainer.evaluation import assessment


@pytest.fixture(scope="session", autouse=True)
def without_minilm() -> Iterator[None]:
    """No MiniLM baseline, installed or not: it takes seconds in each of many training runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assessment, "minilm_folder", lambda: None)
        yield
