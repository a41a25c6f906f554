"""Torch keeps to the cores that a process may use."""

from collections.abc import Iterator

import pytest
import torch

from rankserve.cli import torch_threads


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("of_torch", "available", "used"), [(4, 2, 2), (1, 2, 1), (3, 3, 3)])
def test_torch_uses_no_more_threads_than_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, of_torch: int, available: int, used: int
) -> None:
    torch.set_num_threads(of_torch)
    monkeypatch.setattr(torch_threads, "available_cores", lambda: available)
    torch_threads.use_available_cores()
    assert torch.get_num_threads() == used
