"""Which of two prompts is known to have the shorter answer."""

from torch import Tensor

from rankserve.trainer.labels import ListLabels


def known_shorter(labels: ListLabels) -> Tensor:
    """Whether, sample by sample, item i's answer is known to be shorter than item j's.

    A cut answer is longer than any whole one up to its length, that length included, since it would have
    gone on. Against a longer one, and against another cut one, nothing is known.

    Returns:
        bool [samples, items i, items j]; never true of i and j both ways, nor of ties.
    """
    lengths, complete, censored = labels.lengths.T, labels.complete.T, labels.censored.T
    return _shorter(lengths[:, :, None], complete[:, :, None], lengths[:, None, :], censored[:, None, :])


def preferences(labels: ListLabels, *, near_tie: float, count_ties: bool) -> Tensor:
    """How often item i's answer is shorter than item j's, over all pairs of a sample of i and one of j.

    Args:
        labels: of the list.
        near_tie: pairs of samples are left out whose lengths differ by less than this share of the longer
            one, or are not known to differ by so much.
        count_ties: equal lengths count half for either item, unless ``near_tie`` leaves them out.

    Returns:
        float [items i, items j], 0 for i = j. With [j, i] it adds up to the share of known pairs of samples:
        1, less where samples are cut or near ties are left out.
    """
    # [samples of i, samples of j, i, j]: long runs in memory, for speed.
    lengths, complete, censored = labels.lengths.T, labels.complete.T, labels.censored.T
    first, second = lengths[:, None, :, None], lengths[None, :, None, :]
    counted = _shorter(first, complete[:, None, :, None], second, censored[None, :, None, :])
    if near_tie:
        counted &= second - first >= near_tie * second
    shares = counted.sum(dim=(0, 1), dtype=labels.lengths.dtype)
    if count_ties and not near_tie:
        ties = (first == second) & complete[:, None, :, None] & complete[None, :, None, :]
        shares = shares + ties.sum(dim=(0, 1), dtype=labels.lengths.dtype) / 2
    samples = labels.present.sum(dim=1)
    return (shares / (samples[:, None] * samples[None, :])).fill_diagonal_(0)


def _shorter(first: Tensor, first_is_complete: Tensor, second: Tensor, second_is_cut: Tensor) -> Tensor:
    # NaN, where there is no sample, compares as false.
    return first_is_complete & ((first < second) | ((first == second) & second_is_cut))
