"""Words of a text: which tokens are meant when a user names some."""

import pytest
import torch

from ei2_modules.attention.control.words import Text, Token, word_weights, words_in
from ei2_modules.errors import EI2Error

from .toy_text import text

RED = "a red circle, a Red square on a blue background"  # "circle" is circ le, "square" squa re
#      0 1   2 3   4 5 6   7 8     9  ... words; tokens begin at 1


@pytest.mark.parametrize(
    ("caption", "phrases", "pieces"),
    [
        (RED, "red", ["red", "red"]),
        (RED, "RED", ["red", "red"]),
        (RED, "circle", ["circ", "le"]),
        (RED, "red square", ["red", "squa", "re"]),
        (RED, "  blue   background ", ["blue", "back", "grou", "nd"]),
        (RED, "circle, blue", ["circ", "le", "blue"]),
        (RED, "circle\nblue", ["circ", "le", "blue"]),
        (RED, "blue, red, blue", ["red", "red", "blue"]),
        (RED, "circle a red", ["circ", "le", "a", "red"]),  # over a comma that the caption has
        (RED, "red, red square,", ["red", "red", "squa", "re"]),
        ("the cat's hat", "cat's", ["cat", "s"]),
        ("the cat's hat", "cats", ["cat", "s"]),
        ("a well-known cat", "well-known", ["well", "know", "n"]),
        ("a well-known cat", "well known", ["well", "know", "n"]),
        ("une tête 🐱 étoile", "TÊTE", ["tête"]),
        ("une tête", "te\u0302te", ["tête"]),  # the accent typed apart
        ("a cat a cat", "cat a cat", ["cat", "a", "cat"]),
        ("a a a", "a a", ["a", "a", "a"]),  # every place where it stands
    ],
)
def test_words_are_found(caption, phrases, pieces):
    found = text(caption, 40)
    assert [found.tokens[i].id for i in words_in(found, phrases)] == pieces


@pytest.mark.parametrize(
    ("caption", "phrases", "named"),
    [
        (RED, "green", "'green' is not in the text"),
        (RED, "red, green", "'green' is not in the text"),
        (RED, "red blue", "'red blue' is not in the text"),
        (RED, "circ", "'circ' is not"),  # a piece is no word
        (RED, "le", "'le' is not"),
        (RED, "redcircle square", "is not"),
        (RED, "", "No word is named"),
        (RED, " , ", "No word is named"),
        ("a, b", "!", "'!' is not"),
        ("at able men", "a table", "'a table' is not"),  # the same letters, other words
        ("a table", "at able", "'at able' is not"),
        ("a star", "a star a", "'a star a' is not"),
    ],
)
def test_what_is_not_there_is_said(caption, phrases, named):
    with pytest.raises(EI2Error) as error:
        words_in(text(caption), phrases)
    assert named in str(error.value)
    assert ", ".join(text(caption).words) in str(error.value)


def test_a_text_without_words_says_so():
    with pytest.raises(EI2Error, match="words are: none"):
        words_in(text(""), "red")


def test_an_embedding_has_a_name():
    """Its tokens are vectors: the caller gives something hashable and a word to read."""
    tokens = (Token("s", special="start"), Token(("vector", 7), 0), Token(("vector", 8), 0), Token(5, 1))
    assert words_in(Text(("embedding:my_cat", "here"), tokens), "embedding:my_cat") == [1, 2]


def test_tokens_of_a_word_in_two_chunks():
    found = text("aaaa bbbb cccc dddd bbbb", length=5)  # three words a chunk
    assert words_in(found, "bbbb") == [2, 7]
    assert found.special("start") == [0, 5] and found.special("end") == [4, 8] and found.special("padding") == [9]


def test_weights():
    found = text("a red circle")
    weights = word_weights(found, {"circle": 2.5, "red": 0})
    assert weights.tolist() == [1, 1, 0, 2.5, 2.5] + [1] * 11
    assert torch.equal(word_weights(found, {}), torch.ones(16))


@pytest.mark.parametrize("factors", [{"green": 2}, {"red": float("nan")}, {"red": float("inf")}, {"": 2}])
def test_weights_that_cannot_be(factors):
    with pytest.raises(EI2Error):
        word_weights(text("a red circle"), factors)
