"""Hugging Face's own progress bars, which are no lines and would tear up a log."""


def disable_hub_bars() -> None:
    """No bars of `datasets` and of downloads from the hub: whoever reads opens a stage.

    Raises:
        ModuleNotFoundError: `datasets` is not installed.
    """
    import datasets
    import huggingface_hub.utils

    datasets.disable_progress_bars()
    huggingface_hub.utils.disable_progress_bars()
