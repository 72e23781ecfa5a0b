"""A text as its encoder cuts it, and where in it the words stand that a user names.

How a text becomes tokens is the caller's matter: special tokens are marked, and an id may be anything hashable.
"""

import string
import unicodedata
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from ...errors import EI2Error


@dataclass(frozen=True)
class Token:
    """One place of an encoded text."""

    id: Hashable  # two words are the same if their ids are: a number, or what an embedding is known by
    word: int | None = None  # which of the text's words it belongs to
    special: str = ""  # "start", "end" or "padding"; such a token belongs to no word


@dataclass(frozen=True)
class Text:
    """A text as its encoder cuts it: chunks of a long text follow one another, each with special tokens of its own."""

    words: tuple[str, ...]  # to be read by people
    tokens: tuple[Token, ...]

    def tokens_of(self, words: Iterable[int]) -> list[int]:
        """Places of the tokens of some words, in order."""
        wanted = set(words)
        return [i for i, token in enumerate(self.tokens) if token.word in wanted]

    def special(self, kind: str) -> list[int]:
        return [i for i, token in enumerate(self.tokens) if token.special == kind]

    def ids(self) -> list[tuple[Hashable, ...]]:
        """What each word is compared by."""
        return [tuple(self.tokens[i].id for i in self.tokens_of([word])) for word in range(len(self.words))]


# where the words before a noun that describe it end: "on a small red | circle"
FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "some",
        "any",
        "no",
        "my",
        "your",
        "his",
        "her",
        "its",
        "our",
        "their",
        "each",
        "every",
        "one",
        "two",
        "three",
        "and",
        "or",
        "but",
        "nor",
        "of",
        "on",
        "in",
        "at",
        "by",
        "to",
        "from",
        "with",
        "without",
        "into",
        "onto",
        "over",
        "under",
        "behind",
        "before",
        "beside",
        "near",
        "between",
        "through",
        "is",
        "are",
        "was",
        "were",
        "be",
        "being",
        "been",
        "has",
        "have",
        "had",
        "as",
        "than",
        "then",
        "while",
        "when",
        "where",
        "who",
        "which",
    ]
)


def described(text: Text, word: int) -> list[int]:
    """The words directly before a word that describe it, as far as its article or preposition: "a small red circle".

    Ours: a colour is often seen where its thing is, and more sharply than the noun. English; elsewhere it ends at the
    nearest punctuation, or where the text begins. Nothing describes a function word.
    """
    first = word
    while first > 0 and text.words[word].casefold() not in FUNCTION_WORDS:
        before = text.words[first - 1].casefold()
        if before in FUNCTION_WORDS or not _plain(before) or before[-1] in string.punctuation:
            break
        first -= 1
    return list(range(first, word))


def words_in(text: Text, phrases: str) -> list[int]:
    """Places of the tokens of the words that a user names: one word, several in a row, or several such after commas.

    Every place where a phrase stands counts. Case and punctuation do not matter. Raises EI2Error that lists the words.
    """
    named = [phrase for phrase in phrases.replace("\n", ",").split(",") if phrase.strip()]
    listed = ", ".join(text.words) or "none"
    if not named:
        raise EI2Error(f"No word is named. The text's words are: {listed}.")
    found = set()
    for phrase in named:
        places = _find(text.words, phrase)
        if not places:
            raise EI2Error(f"{phrase.strip()!r} is not in the text. Its words are: {listed}.")
        found |= places
    return text.tokens_of(found)


def word_weights(text: Text, factors: Mapping[str, float]) -> Tensor:
    """(t,) what each token's map is multiplied by (Prompt-to-Prompt's equalizer): phrases of the text -> factors."""
    weights = torch.ones(len(text.tokens))
    for phrase, factor in factors.items():
        if not torch.tensor(factor, dtype=weights.dtype).isfinite():
            raise EI2Error(f"the weight of {phrase!r} is {factor}: it must be a number, 1 for no change.")
        weights[words_in(text, phrase)] = factor
    return weights


def _find(words: tuple[str, ...], phrase: str) -> set[int]:
    """Runs of whole words that read as the phrase, however the encoder cuts: "cat's" may be two words or one."""
    parts, plain = [_plain(part) for part in phrase.split()], [_plain(word) for word in words]
    found = set()
    for first in range(len(words)):
        for last in range(first, len(words)):
            run = plain[first : last + 1]
            if len("".join(run)) >= len("".join(parts)):
                if "".join(run) == "".join(parts) and _ends(parts) <= _ends(run):
                    found.update(i for i in range(first, last + 1) if plain[i])
                break
    return found


def _plain(word: str) -> str:
    word = unicodedata.normalize("NFC", word).casefold()
    return "".join(c for c in word if not c.isspace() and c not in string.punctuation)


def _ends(pieces: list[str]) -> set[int]:
    return set(accumulate(map(len, pieces)))
