"""How many threads torch, and what takes its number from torch, uses in a command."""

from rankserve.records.cpu import available_cores


def use_available_cores() -> None:
    """Holds torch to the cores that the process may use: it does not know of quotas."""
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
