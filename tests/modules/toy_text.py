"""A toy text encoder's tokens: words in pieces of four letters, in chunks with start, end and padding."""

import re

from ei2_modules.attention.control.words import Text, Token

PIECE = 4  # "background" is back, grou, nd


def text(caption, length=16):
    """Whole words are kept in one chunk of `length` tokens."""
    words = tuple(re.findall(r"\w+|[^\w\s]", caption))
    chunks = [[]]
    for i, word in enumerate(words):
        pieces = [Token(word[j : j + PIECE].lower(), i) for j in range(0, len(word), PIECE)]
        if len(chunks[-1]) + len(pieces) > length - 2:
            chunks.append([])
        chunks[-1] += pieces
    tokens = []
    for chunk in chunks:
        padding = [Token("pad", special="padding")] * (length - 2 - len(chunk))
        tokens += [Token("start", special="start"), *chunk, Token("end", special="end"), *padding]
    return Text(words, tuple(tokens))


def read(text, place):
    """A token as people read it: its piece, or what is special about it and where it stands."""
    token = text.tokens[place]
    return token.id if token.word is not None else f"{token.special}{place}"
