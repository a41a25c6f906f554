"""Hugging Face's own progress bars, which are no lines and would tear up a log."""


def disable_hub_bars() -> None:
    """No bars of `datasets` and of downloads from the hub: whoever reads opens a stage.

    Raises:
        ModuleNotFoundError: `datasets` is not installed.
    """
    import datasets
    from huggingface_hub.utils.tqdm import disable_progress_bars

    datasets.disable_progress_bars()
    disable_progress_bars()
