"""The edit of a prompt without a text encoder: its words, one token each, and conditioning that is given."""

from tools.server.in_process import pack

alignment, words = pack("ei2_modules.attention.control.alignment"), pack("ei2_modules.attention.control.words")
editing = pack("nodes.host.control.prompt_edit")
CAPTION, PROMPT = "a man is skiing", "a bear is skiing fast"  # a word replaced, and one inserted


def prompt_edit(conditioning: list):
    """PromptEdit, whose local blend goes by the words that change. conditioning: of caption and prompt alike."""
    tokens = conditioning[0][0].shape[1]
    found = alignment.align(text(CAPTION, tokens), text(PROMPT, tokens))
    blend = editing.BlendWords(*map(sorted, found.changed))
    return editing.PromptEdit(
        caption=conditioning, prompt=conditioning, alignment=found, weights=None, blend=blend, inverts=frozenset()
    )


def text(caption: str, tokens: int):
    """Text of so many tokens: start, a word each, end, padding."""
    said = tuple(caption.split())
    special = {0: "start", len(said) + 1: "end"}
    return words.Text(said, tuple(
        words.Token(said[i - 1], i - 1) if 0 < i <= len(said) else words.Token("", special=special.get(i, "padding"))
        for i in range(tokens)
    ))  # fmt: skip
