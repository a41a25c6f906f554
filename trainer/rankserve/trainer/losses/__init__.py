"""Listwise losses, one a file."""

from rankserve.trainer.losses.listmle import list_mle

__all__ = ["list_mle"]
