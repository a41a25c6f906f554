"""The section on transfer in Markdown."""

from collections.abc import Iterable
from statistics import fmean

from benchmarks.experiments.tables import markdown
from benchmarks.rankers.baselines import LINEAR
from benchmarks.rankers.transfer import Cell, Transfer

TITLE = "Transfer"


def render(transfer: Transfer) -> str:
    """The section in Markdown."""
    return f"{_shows(transfer)}\n\n{_setting(transfer)}\n\n{_matrix(transfer)}"


def _shows(transfer: Transfer) -> str:
    """What the matrix says, in figures alone."""
    names = [each.name for each in transfer.sets]
    own = {name: transfer.cell(name, name) for name in names}
    others = [each for each in transfer.cells if each.train != each.test]

    def lost(cell: Cell) -> float:
        return own[cell.test].ranker.value - cell.ranker.value

    def against(cell: Cell) -> str:
        return f"{cell.ranker.value:.3f} against {own[cell.test].ranker.value:.3f}"

    closest, furthest = min(others, key=lost), max(others, key=lost)
    better = [each for each in transfer.cells if each.ranker.value > each.linear.value]
    no_order = [each for each in others if each.ranker.low <= 0]
    return (
        f"A ranker that is tested on the set it was trained on has tau {_mean_tau(own.values()):.3f} on "
        f"average, on another set {_mean_tau(others):.3f}: {_between(closest)} comes closest to the test "
        f"set's own ranker ({against(closest)}), {_between(furthest)} stays furthest behind "
        f"({against(furthest)}). In {len(no_order)} of these {len(others)} cells the interval reaches down "
        f"to 0. The ranker is above {LINEAR} in {len(better)} of all {len(transfer.cells)} cells, by "
        f"{_mean_gain(own.values()):+.3f} on average where both were trained on the set and "
        f"by {_mean_gain(others):+.3f} where they were not."
    )


def _mean_tau(cells: Iterable[Cell]) -> float:
    return fmean(each.ranker.value for each in cells)


def _mean_gain(cells: Iterable[Cell]) -> float:
    return fmean(each.ranker.value - each.linear.value for each in cells)


def _between(cell: Cell) -> str:
    return f"{cell.train} → {cell.test}"


def _setting(transfer: Transfer) -> str:
    left_out = ", ".join(
        f"{each.left_out} of {each.left_out + each.prompts:,} for {_between(each)}"
        for each in transfer.cells
        if each.left_out
    )
    trained_on = ", ".join(f"{each.name} {each.train:,}" for each in transfer.sets)
    return (
        f"*Setting:* `{transfer.config}`, one ranker for each set ({transfer.model}), epochs: "
        f"{transfer.epochs}, prompts cut at {transfer.max_length} tokens, seed {transfer.seed}; training "
        f"prompts: {trained_on}. tau-b against one sample, the hottest where there are several, with its "
        "95 % bootstrap interval over test prompts; in fp32. Left out of the test, because the ranker was "
        f"trained on them: {left_out or 'none'}. The linear model is trained on the same prompts, whole. "
        "*Category alone* orders by the mean length of a prompt's category in the training split. "
        f"{transfer.conditions}"
    )


def _matrix(transfer: Transfer) -> str:
    names = [each.name for each in transfer.sets]
    rows = []
    for train in names:
        cells = [transfer.cell(train, test) for test in names]
        rows.append([f"**{train}**", *(_own(str(each.ranker), each) for each in cells)])
        rows.append([f"{LINEAR} on the same", *(_own(str(each.linear), each) for each in cells)])
    rows.append(["ceiling", *("" if each.ceiling is None else str(each.ceiling) for each in transfer.sets)])
    if any(each.category for each in transfer.sets):
        rows.append(["category alone", *(str(each.category or "") for each in transfer.sets)])
    rows.append(["test prompts", *(f"{each.test:,}" for each in transfer.sets)])
    return markdown(["trained on ↓, tested on →", *names], rows)


def _own(text: str, cell: Cell) -> str:
    return f"**{text}**" if cell.train == cell.test else text
