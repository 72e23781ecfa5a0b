"""Two texts, their conditioning, and which word of one stands for which of the other."""

import re
from dataclasses import dataclass, field

from comfy.sd import CLIP
from torch import Tensor

from ....ei2_modules.attention.control.alignment import Alignment, align
from ....ei2_modules.attention.control.words import Text, described, word_weights, words_in
from ....ei2_modules.errors import EI2Error
from ..conditioning import checksum
from .texts import read_text


@dataclass(frozen=True, eq=False)
class BlendWords:
    """Places of tokens: an edit changes only where these words are seen, and not where the kept ones are."""

    source: list[int]
    target: list[int]
    kept_source: list[int] = field(default_factory=list)
    kept_target: list[int] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class PromptEdit:
    """What Prompt Edit gives: never changed."""

    caption: list  # CONDITIONING of what the clip shows
    prompt: list  # CONDITIONING of what it shall show
    alignment: Alignment
    weights: Tensor | None  # (t,) of the prompt's tokens
    blend: BlendWords
    inverts: frozenset[bytes]  # checksums of texts that the clip may be inverted under: the caption, or none


def make_prompt_edit(clip: CLIP, caption: str, prompt: str, weights: str, blend: str) -> PromptEdit:
    """weights: lines or pieces after commas such as "green: 2". blend: words of either text, by which it is known where
    the clip may change (those that changed, without any), and after a minus words where it must not.

    Raises EI2Error for a word that is in neither text, and lists the words.
    """
    texts = [read_text(clip, text) for text in (caption, prompt)]
    alignment = align(*texts)
    encoded = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (caption, prompt, "")]
    for text, conditioning in zip(texts, encoded, strict=False):
        _check_length(text, conditioning)
    factors = _factors(weights)
    weights = word_weights(texts[1], factors) if factors else None
    inverts = frozenset(checksum(encoded[i]) for i in (0, 2))
    return PromptEdit(*encoded[:2], alignment, weights, _blend(alignment, blend), inverts)


def describe(edit: PromptEdit) -> str:
    """For the node: which word became which, and where the edit may change something."""
    source, target = edit.alignment.source, edit.alignment.target
    lines = [edit.alignment.describe()]
    seen = " ".join(dict.fromkeys([*_words(source, edit.blend.source), *_words(target, edit.blend.target)]))
    lines += [f"local blend by: {seen}"] if seen else []
    stays = " ".join(dict.fromkeys([*_words(source, edit.blend.kept_source), *_words(target, edit.blend.kept_target)]))
    lines += [f"stays as it is: {stays}"] if stays else []
    if edit.weights is not None:
        weighted = {word: float(edit.weights[i]) for i, word in _named(target) if edit.weights[i] != 1}
        lines.append("weights: " + ", ".join(f"{word} {factor:g}" for word, factor in weighted.items()))
    return "\n".join(lines)


def _check_length(text: Text, conditioning: list) -> None:
    tokens = conditioning[0][0].shape[1]
    if len(conditioning) > 1 or tokens != len(text.tokens):
        raise EI2Error(
            f"The text encoder gave {len(conditioning)} conditionings of {tokens} tokens for a text of "
            f"{len(text.tokens)}: attention control needs one, token by token. Take nodes that change the CLIP (hooks, "
            "advanced encoders) off it."
        )


def _blend(alignment: Alignment, words: str) -> BlendWords:
    """words: phrases after commas or on lines; one after a minus names what must stay."""
    changing, kept = ([], []), ([], [])
    for phrase in map(str.strip, re.split(r"[,\n]", words)):
        if phrase.strip("- "):
            side = kept if phrase.startswith("-") else changing
            for places, here in zip(side, _places(alignment, phrase.lstrip("- ")), strict=True):
                places += here
    if not any(changing):
        changing = _things(alignment)
    return BlendWords(*(sorted(set(places)) for places in (*changing, *kept)))


def _things(alignment: Alignment) -> tuple[list[int], list[int]]:
    """What changed, with the words that describe it: what it is a change of is known by them too."""
    old = {word for words, _ in alignment.replaced for word in words} | {*alignment.deleted}
    new = {word for _, words in alignment.replaced for word in words} | {*alignment.inserted}
    sides = (alignment.source, old), (alignment.target, new)
    return tuple(text.tokens_of(changed.union(*(described(text, word) for word in changed))) for text, changed in sides)


def _places(alignment: Alignment, phrase: str) -> tuple[list[int], list[int]]:
    found = _or_none(alignment.source, phrase), _or_none(alignment.target, phrase)
    if not any(found):
        listed = ", ".join(dict.fromkeys([*alignment.source.words, *alignment.target.words]))
        raise EI2Error(f"{phrase!r} is in neither text, so nothing can be blended by it. Words: {listed}.")
    return found


def _or_none(text: Text, phrase: str) -> list[int]:
    try:
        return words_in(text, phrase)
    except EI2Error:
        return []


def _factors(weights: str) -> dict[str, float]:
    found = {}
    for line in filter(str.strip, re.split(r"[,\n]", weights)):
        phrase, colon, number = line.rpartition(":")
        try:
            found[phrase.strip()] = float(number)
        except ValueError:
            colon = ""
        if not colon or not phrase.strip():
            raise EI2Error(f"{line.strip()!r} is no weight of a word: write for example green: 2, circle: 0.5")
    return found


def _words(text: Text, places: list[int]) -> list[str]:
    return [text.words[text.tokens[i].word] for i in places]


def _named(text: Text) -> list[tuple[int, str]]:
    return [(i, text.words[token.word]) for i, token in enumerate(text.tokens) if token.word is not None]
