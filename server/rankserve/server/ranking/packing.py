"""Which prompts run together, so that little of a run is padding."""

from collections.abc import Sequence


def pack_by_length(lengths: Sequence[int], *, max_tokens: int, padding_allowance: int) -> list[list[int]]:
    """Groups items into runs, longest first.

    Args:
        lengths: tokens of each item.
        max_tokens: bound on a run's padded size (items x longest), except for a run of one item.
        padding_allowance: padded tokens worth accepting to save a run: the fixed cost of a run in tokens.

    Returns:
        Indices into `lengths`, each exactly once; within a run in descending length.
    """
    runs: list[list[int]] = []
    longest = padding = 0
    for index in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        short_of = longest - lengths[index]
        fits = bool(runs) and (len(runs[-1]) + 1) * longest <= max_tokens
        if fits and padding + short_of <= padding_allowance:
            runs[-1].append(index)
            padding += short_of
        else:
            runs.append([index])
            longest, padding = lengths[index], 0
    return runs
