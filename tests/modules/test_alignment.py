"""Alignment of two texts: a table of edits, the best of all alignments, and mass that is neither lost nor made."""

import itertools

import pytest
import torch

from ei2_modules.attention.control.alignment import align, common_words
from ei2_modules.errors import EI2Error

from .toy_text import read, text

# (caption, prompt, what is said, target piece -> {source piece: share}; pieces not named keep or take their own)
EDITS = [
    ("a red circle", "a red circle", "kept: a red circle", {}),
    ("a red circle", "a blue circle", "kept: a circle\nred -> blue", {"blue": {"red": 1}}),
    ("a star", "a cube", "kept: a\nstar -> cube", {"cube": {"star": 1}}),
    ("a circle", "a square", "kept: a\ncircle -> square", {"squa": {"circ": 1}, "re": {"le": 1}}),
    ("a star", "a square", "kept: a\nstar -> square", {"squa": {"star": 0.5}, "re": {"star": 0.5}}),
    ("a square", "a star", "kept: a\nsquare -> star", {"star": {"squa": 1, "re": 1}}),
    ("red star", "blue cube", "red -> blue\nstar -> cube", {"blue": {"red": 1}, "cube": {"star": 1}}),
    ("a star", "a big star", "kept: a star\ninserted: big", {"big": {}}),
    ("a big star", "a star", "kept: a star\ndeleted: big", {}),
    ("a star", "a star at night", "kept: a star\ninserted: at night", {"at": {}, "nigh": {}, "t": {}}),
    (
        "a star on it",
        "a red cube on it",
        "kept: a on it\nstar -> red cube",
        {"red": {"star": 0.5}, "cube": {"star": 0.5}},
    ),
    ("a red star on it", "a cube on it", "kept: a on it\nred star -> cube", {"cube": {"red": 1, "star": 1}}),
    (
        "a red star on it",
        "a big blue cube on it",
        "kept: a on it\nred star -> big blue cube",
        {piece: {"red": 1 / 3, "star": 1 / 3} for piece in ("big", "blue", "cube")},
    ),
    (
        "red star and blue cube",
        "blue star and red cube",
        "kept: star and cube\nred -> blue\nblue -> red",
        {"blue": {"red": 1}, "red": {"blue": 1}},
    ),
    (
        "a big star, red",
        "a star, blue at night",
        "kept: a star ,\nred -> blue at night\ndeleted: big",
        {"blue": {"red": 0.25}, "at": {"red": 0.25}, "nigh": {"red": 0.25}, "t": {"red": 0.25}},
    ),
    ("A star", "a STAR", "kept: a STAR", {}),  # the encoder's ids decide
]


def shares(alignment):
    """Target token -> {source token: share}, in pieces."""
    columns = alignment.mapper.T
    return {
        read(alignment.target, j): {read(alignment.source, int(i)): float(column[i]) for i in column.nonzero()[:, 0]}
        for j, column in enumerate(columns)
    }


def expected_shares(source, target, named):
    """Special tokens go to what has the same name, other words to themselves unless said otherwise."""
    found = {}
    for j, token in enumerate(target.tokens):
        piece = read(target, j)
        if piece in named:
            found[piece] = named[piece]
        elif token.special in ("start", "end"):
            found[piece] = {read(source, source.special(token.special)[0]): 1}
        else:
            found[piece] = {piece: 1} if piece in [read(source, i) for i in range(len(source.tokens))] else {}
    return found


@pytest.mark.parametrize(("caption", "prompt", "said", "named"), EDITS)
def test_edits(caption, prompt, said, named):
    source, target = text(caption), text(prompt)
    alignment = align(source, target)
    assert alignment.describe() == said
    found, expected = shares(alignment), expected_shares(source, target, named)
    for piece, of in expected.items():
        assert found[piece] == pytest.approx(of), piece
    assert alignment.shared.tolist() == [float(bool(of)) for of in expected.values()]


@pytest.mark.parametrize(
    ("caption", "prompt"),
    [row[:2] for row in EDITS] + [("a star " * 9, "a red star on it " * 7)],
)
def test_mass_is_kept(caption, prompt):
    """A source token gives all or nothing; a target token takes the tokens of the old words over those of the new."""
    alignment = align(text(caption), text(prompt))
    given = alignment.mapper.sum(1)
    assert torch.all((given == 0) | ((given - 1).abs() < 1e-6))
    gone = alignment.source.tokens_of(alignment.deleted)
    assert not given[gone].any()
    assert torch.equal(alignment.shared, (alignment.mapper.sum(0) > 0).float())
    for old, new in alignment.replaced:
        old, new = alignment.source.tokens_of(old), alignment.target.tokens_of(new)
        torch.testing.assert_close(
            alignment.mapper.sum(0)[new], torch.full((len(new),), len(old) / len(new)), rtol=0, atol=1e-6
        )


def test_every_word_is_said_once():
    alignment = align(text("a big star, red"), text("a star, blue at night"))
    old = [i for i, _ in alignment.kept] + [i for run, _ in alignment.replaced for i in run] + [*alignment.deleted]
    new = [j for _, j in alignment.kept] + [j for _, run in alignment.replaced for j in run] + [*alignment.inserted]
    assert sorted(old) == list(range(5)) and sorted(new) == list(range(6))
    assert [read(alignment.source, i) for i in alignment.source.tokens_of(alignment.changed[0])] == ["big", "red"]
    assert [read(alignment.target, j) for j in alignment.target.tokens_of(alignment.changed[1])] == [
        "blue",
        "at",
        "nigh",
        "t",
    ]
    inserted = align(text("a star"), text("a new star"))
    assert inserted.target.tokens_of(inserted.changed[1]) == [2]


def test_padding_stays_in_place():
    """A longer prompt has its end where the caption has padding; a shorter one, padding that has no partner."""
    source, target = text("a star", 8), text("a big red star", 8)  # end at 3 and at 5
    longer, shorter = align(source, target), align(target, source)
    assert [longer.mapper[:, j].nonzero().tolist() for j in (5, 6, 7)] == [[[3]], [[6]], [[7]]]
    assert [shorter.mapper[:, j].nonzero().tolist() for j in range(3, 8)] == [[[5]], [], [], [[6]], [[7]]]


def test_long_texts_are_aligned_through_their_chunks():
    """One word more moves every later word, over the border of a chunk."""
    source, target = text("a b c d e f g", 5), text("a b new c d e f h i", 5)  # chunks of three words
    alignment = align(source, target)
    assert alignment.describe() == "kept: a b c d e f\ng -> h i\ninserted: new"
    assert alignment.mapper.shape == (15, 15)
    for i, j in ((0, 0), (5, 5), (10, 10), (4, 4), (9, 9), (12, 14)):  # starts and ends; the last end elsewhere
        assert alignment.mapper[i, j] == 1
    for piece in "abcdef":
        at = [[t.id for t in side.tokens].index(piece) for side in (source, target)]
        assert alignment.mapper[at[0], at[1]] == 1
    assert not alignment.mapper[[13, 14]].any()  # padding of the caption where the prompt has none


def test_more_chunks_than_the_caption_has():
    alignment = align(text("a b", 5), text("a b c d", 5))
    assert alignment.mapper.shape == (5, 10)
    assert alignment.shared.tolist() == [1, 1, 1, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("caption", "prompt", "named"),
    [
        ("", "a star", "caption has no words"),
        ("a star", "", "prompt has no words"),
        ("", "", "caption has no words"),
        ("a star", "the big cube", r"caption \(2 words\) and prompt \(3 words\) have no word in common"),
    ],
)
def test_texts_that_cannot_be_aligned(caption, prompt, named):
    with pytest.raises(EI2Error, match=named):
        align(text(caption), text(prompt))


def all_alignments(a, b):
    """Every way to pair equal words in order."""
    for size in range(min(len(a), len(b)) + 1):
        for i in itertools.combinations(range(len(a)), size):
            for j in itertools.combinations(range(len(b)), size):
                if all(a[x] == b[y] for x, y in zip(i, j, strict=True)):
                    yield tuple(zip(i, j, strict=True))


def going_on(pairs, a, b):
    return sum(a[i + 1 : i + 2] == b[j + 1 : j + 2] != [] for i, j in pairs)


@pytest.mark.parametrize("seed", range(40))
def test_no_alignment_is_better(seed):
    """Of all: most pairs, then most that are followed by equal words."""
    generator = torch.Generator().manual_seed(seed)
    n, m = torch.randint(1, 7, (2,), generator=generator).tolist()
    a, b = (torch.randint(0, 3, (k,), generator=generator).tolist() for k in (n, m))
    best = max((len(pairs), going_on(pairs, a, b)) for pairs in all_alignments(a, b))
    found = common_words(a, b)
    assert found in set(all_alignments(a, b))
    assert (len(found), going_on(found, a, b)) == best


@pytest.mark.parametrize(
    ("a", "b", "pairs"),
    [
        ("a cat", "a dog and a cat", ((0, 3), (1, 4))),
        ("a cat", "a cat and a dog", ((0, 0), (1, 1))),
        ("a cat", "a big dog and a cat", ((0, 4), (1, 5))),
        ("a cat and a dog", "a dog", ((3, 0), (4, 1))),
        ("cat cat", "cat", ((0, 0),)),
        ("1 2 3 4 a red cat", "a red cat 1 or 2 or 3 or 4", ((0, 3), (1, 5), (2, 7), (3, 9))),  # more before together
        ("cat", "dog", ()),
    ],
)
def test_repeated_words(a, b, pairs):
    assert common_words(a.split(), b.split()) == pairs
