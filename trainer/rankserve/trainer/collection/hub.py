"""The rows of a Hugging Face dataset, by hub id or from a local folder."""

from collections.abc import Iterator
from typing import Any

from rankserve.trainer.collection.errors import CollectionError
from rankserve.trainer.hub_bars import disable_hub_bars


def read_dataset(name: str, *, subset: str | None, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (row number from 1, columns) of one split.

    Args:
        name: a hub id, or a folder of files that `datasets` can read.
        subset: one of its configurations, where it has several.
        split: "train", or with a slice as `datasets` writes it: "train[:1000]".

    Raises:
        CollectionError: `datasets` is not installed or cannot load it.
    """
    try:
        import datasets
    except ModuleNotFoundError:
        raise CollectionError(
            "--dataset needs the package 'datasets': pip install 'rankserve[hub]'"
        ) from None
    disable_hub_bars()
    try:
        rows = datasets.load_dataset(name, subset, split=split)
    # The last: a dataset that is a script, which `datasets` no longer runs.
    except (OSError, ValueError, datasets.exceptions.DatasetsError, RuntimeError) as error:
        raise CollectionError(
            f"cannot load the dataset {name!r}, split {split!r} ({_first_line(error)}): check the name, "
            f"--subset and --split, and HF_TOKEN where access is granted on request"
        ) from error
    return ((number, dict(row)) for number, row in enumerate(rows, start=1))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
