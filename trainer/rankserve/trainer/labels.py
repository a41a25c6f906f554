"""What a list is trained towards: sampled output lengths, some known only as "at least"."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

Label = Literal["mean", "sample", "distribution"]


@dataclass(slots=True, frozen=True)
class ListLabels:
    """The labels of one list.

    Attributes:
        lengths: float [items, samples] output tokens, NaN where a prompt has fewer samples.
        censored: bool [items, samples]; the answer was cut at this length, so it is "at least" this long.
        teacher: float [items] or None; a teacher's score, higher = shorter answer expected.
    """

    lengths: Tensor
    censored: Tensor
    teacher: Tensor | None = None

    @classmethod
    def of(
        cls,
        lengths: Sequence[Sequence[float]],
        censored: Sequence[Sequence[bool]] | None = None,
        teacher: Sequence[float] | None = None,
    ) -> Self:
        """From the samples of each item, of which items may have different numbers.

        Args:
            lengths: output tokens of each item's samples, at least one each.
            censored: which of them were cut, in the same shape; None: none was.
            teacher: a score for each item.
        """
        samples = max(map(len, lengths))
        padded = torch.full((len(lengths), samples), torch.nan, dtype=torch.float32)
        cut = torch.zeros((len(lengths), samples), dtype=torch.bool)
        for i, row in enumerate(lengths):
            padded[i, : len(row)] = torch.tensor(row, dtype=torch.float32)
            if censored is not None:
                cut[i, : len(row)] = torch.tensor(censored[i], dtype=torch.bool)
        return cls(padded, cut, None if teacher is None else torch.tensor(teacher, dtype=torch.float32))

    def __len__(self) -> int:
        """Items."""
        return len(self.lengths)

    @property
    def present(self) -> Tensor:
        """bool [items, samples]: where there is a sample."""
        return ~self.lengths.isnan()

    @property
    def complete(self) -> Tensor:
        """bool [items, samples]: where a sample's whole length is known."""
        return self.present & ~self.censored

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        teacher = None if self.teacher is None else self.teacher.to(device)
        return replace(
            self, lengths=self.lengths.to(device), censored=self.censored.to(device), teacher=teacher
        )

    def reduced(self, label: Label) -> Self:
        """The samples that a loss is to see.

        ``sample`` is the first of each item (Fu et al. 2024), ``mean`` their mean, which is at least so
        long if any of them is, and ``distribution`` all of them.
        """
        if label == "sample":
            return replace(self, lengths=self.lengths[:, :1], censored=self.censored[:, :1])
        if label == "mean":
            return replace(
                self,
                lengths=self.lengths.nanmean(dim=1, keepdim=True),
                censored=(self.censored & self.present).any(dim=1, keepdim=True),
            )
        return self

    def bucketed(self, tokens: int) -> Self:
        """Lengths within a bucket of so many tokens made equal; 0 leaves them as they are.

        A whole answer's length becomes the middle of its bucket. That of a cut one becomes the lower edge:
        which of the two is longer is unknown within a bucket.
        """
        if not tokens:
            return self
        edges = torch.div(self.lengths, tokens, rounding_mode="floor") * tokens
        return replace(self, lengths=torch.where(self.censored, edges.clamp(min=1), edges + tokens / 2))
