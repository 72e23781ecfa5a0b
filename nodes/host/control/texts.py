"""A text as the host's CLIP cuts it, token by token, and the words that people read in it."""

import hashlib

import torch
from comfy.sd import CLIP

from ....ei2_modules.attention.control.words import Text, Token
from ....ei2_modules.demo import vocabulary
from ....ei2_modules.errors import EI2Error

WORD_END = "</w>"  # CLIP's own mark, on the last piece of a word


def read_text(clip: CLIP, text: str) -> Text:
    """As it will stand in the conditioning. SDXL's two encoders cut alike; the first of them is read.

    Raises EI2Error for a text encoder whose tokens are not known.
    """
    if clip is None:
        raise EI2Error(
            "clip is None: the checkpoint holds no text encoder. Load that of its family with Load CLIP, or another "
            "copy of the checkpoint."
        )
    chunks = next(iter(clip.tokenize(text, return_word_ids=True).values()))
    if isinstance(getattr(clip.tokenizer, "ei2_words", None), tuple):
        return _plain(chunks, clip.tokenizer.ei2_words)
    encoder = next((getattr(clip.tokenizer, name) for name in ("clip_l", "clip_g", "clip_h", "l", "g")
                    if hasattr(getattr(clip.tokenizer, name, None), "inv_vocab")), None)  # fmt: skip
    if encoder is None:
        raise EI2Error(
            f"The tokens of this text encoder ({type(clip.tokenizer).__name__}) are not known: attention control works "
            "with the CLIP of Stable Diffusion 1.x, 2.x and XL, and with Load EI² Demo Model."
        )
    return _pieces(chunks, encoder)


def _plain(chunks: list, words: tuple[str, ...]) -> Text:
    """The miniature model's: a word a token."""
    found, tokens = [], []
    for index, *_ in (entry for chunk in chunks for entry in chunk):
        special = {vocabulary.START: "start", vocabulary.PAD: "padding"}.get(index, "")
        tokens.append(Token(index, None if special else len(found), special))
        found += [] if special else [words[index]]
    return Text(tuple(found), tuple(tokens))


def _pieces(chunks: list, encoder) -> Text:
    """CLIP's: a word is one or more pieces, an embedding as many vectors as it has."""
    words, tokens, open_word = [], [], False
    for chunk in chunks:
        ended = False
        for index, *_ in chunk:
            special = _special(index, encoder, ended)
            if special:
                ended |= special == "end"
                tokens.append(Token(index if isinstance(index, int) else -1, None, special))
                continue
            piece, identity = _read(index, encoder)
            if not open_word:
                words.append("")
            words[-1] += piece
            tokens.append(Token(identity, len(words) - 1))
            open_word = not piece.endswith(WORD_END)
    # a piece spells the bytes of letters beyond ASCII: "cafÃ©" is "café"
    return Text(tuple(encoder.tokenizer.convert_tokens_to_string([word]).strip() for word in words), tuple(tokens))


def _special(index, encoder, ended: bool) -> str:
    """The padding of CLIP-L is its end token again."""
    if not isinstance(index, int):
        return ""
    if ended:
        return "padding"
    return {encoder.start_token: "start", encoder.end_token: "end"}.get(index, "")


def _read(index, encoder) -> tuple[str, object]:
    """(piece, what it is known by). A vector of an embedding is a word of its own."""
    if isinstance(index, torch.Tensor):
        digest = hashlib.sha256(index.detach().cpu().float().numpy().tobytes()).hexdigest()[:12]
        return f"(embedding){WORD_END}", digest
    return encoder.inv_vocab[index], index
