"""Which words of a prompt stand for which words of a caption, and whose attention maps their tokens take.

Needleman-Wunsch over words, as Prompt-to-Prompt does over tokens for its "refine"; what it leaves unmatched on both
sides at one place counts as replaced, which is Prompt-to-Prompt's "replace" without its need for equal word counts.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import EI2Error
from .words import Text

Pairs = tuple[tuple[int, int], ...]
Runs = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where each token of a target text (t tokens) takes its map from among the s tokens of its source."""

    source: Text
    target: Text
    mapper: Tensor  # (s, t) fp32: target maps = source maps @ mapper; a source token that goes on gives all of its mass
    shared: Tensor  # (t,) fp32: 1 where a token takes the source's map, 0 where it keeps its own
    kept: Pairs  # (word of the source, word of the target)
    replaced: Runs  # (words of the source, words of the target), one of each unless their numbers differ
    inserted: tuple[int, ...]  # words of the target
    deleted: tuple[int, ...]  # words of the source

    @property
    def changed(self) -> tuple[set[int], set[int]]:
        """Words of the source that the target has not, and words of the target that the source has not."""
        old = {i for words, _ in self.replaced for i in words} | {*self.deleted}
        new = {j for _, words in self.replaced for j in words} | {*self.inserted}
        return old, new

    def describe(self) -> str:
        """Which word became which, a change a line."""
        old, new = self.source.words, self.target.words
        lines = [f"kept: {' '.join(new[j] for _, j in self.kept)}"] if self.kept else []
        lines += [f"{' '.join(old[i] for i in a)} -> {' '.join(new[j] for j in b)}" for a, b in self.replaced]
        lines += [f"inserted: {' '.join(new[j] for j in self.inserted)}"] if self.inserted else []
        lines += [f"deleted: {' '.join(old[i] for i in self.deleted)}"] if self.deleted else []
        return "\n".join(lines)


def align(source: Text, target: Text) -> Alignment:
    """The words of two texts, and from them their tokens.

    Kept words and pairs of replaced words share a map, token by token if they have as many, else spread evenly
    (1 / tokens of the new words, as Prompt-to-Prompt); so do runs of replaced words whose numbers differ. Inserted
    words keep maps of their own. Start goes to start, end to end, padding to padding at the same place.
    Raises EI2Error if a text is empty, or if no word says which of the others face each other.
    """
    kept = common_words(source.ids(), target.ids())
    _check(source, target, kept)
    replaced, inserted, deleted = [], [], []
    for old, new in _gaps(kept, len(source.words), len(target.words)):
        if old and new:
            replaced += [((i,), (j,)) for i, j in zip(old, new, strict=True)] if len(old) == len(new) else [(old, new)]
        else:
            inserted += new
            deleted += old
    mapper = torch.zeros(len(source.tokens), len(target.tokens))
    for old, new in [*(((i,), (j,)) for i, j in kept), *replaced]:
        _take(mapper, source.tokens_of(old), target.tokens_of(new))
    for kind in ("start", "end"):
        for i, j in zip(source.special(kind), target.special(kind), strict=False):  # one has more chunks
            mapper[i, j] = 1
    padding = sorted({*source.special("padding")} & {*target.special("padding")})
    mapper[padding, padding] = 1
    shared = (mapper.sum(0) > 0).float()
    return Alignment(source, target, mapper, shared, kept, tuple(replaced), tuple(inserted), tuple(deleted))


def common_words(a: list[Hashable], b: list[Hashable]) -> Pairs:
    """Needleman-Wunsch with gap 0, match 1, mismatch -1: a mismatch is never better than two gaps, so none is made.

    Of several best alignments the one whose pairs go on alike: "a cat" is found whole in "a dog and a cat".
    """
    match = min(len(a), len(b)) + 1  # more than all pairs that go on alike

    def score(i: int, j: int) -> int:
        return match + (i + 1 < len(a) and j + 1 < len(b) and a[i + 1] == b[j + 1])

    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]  # of what is left from i and j on
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            diagonal = best[i + 1][j + 1] + score(i, j) if a[i] == b[j] else 0
            best[i][j] = max(best[i + 1][j], best[i][j + 1], diagonal)
    pairs, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        if a[i] == b[j] and best[i][j] == best[i + 1][j + 1] + score(i, j):
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return tuple(pairs)


def _check(source: Text, target: Text, kept: Pairs) -> None:
    old, new = len(source.words), len(target.words)
    if not old or not new:
        raise EI2Error(f"the {'prompt' if old else 'caption'} has no words: attention control needs both texts.")
    if not kept and old != new:
        raise EI2Error(
            f"caption ({old} words) and prompt ({new} words) have no word in common, so nothing says which word takes "
            "which one's place. Write the prompt by changing words of the caption."
        )


def _gaps(kept: Pairs, old: int, new: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Words between one pair and the next, of either text."""
    i = j = 0
    for a, b in (*kept, (old, new)):
        yield tuple(range(i, a)), tuple(range(j, b))
        i, j = a + 1, b + 1


def _take(mapper: Tensor, old: list[int], new: list[int]) -> None:
    if len(old) == len(new):
        mapper[old, new] = 1
    else:
        mapper[torch.tensor(old)[:, None], new] = 1 / len(new)
