"""Edits under attention control with the miniature model of random weights, for the tests of them."""

from .mini import caption, invert, pack, run, sample

control, prompts, words, alignments, options = (
    pack(name)
    for name in (
        "nodes.host.control.guider",
        "nodes.host.control.prompt_edit",
        "ei2_modules.attention.control.words",
        "ei2_modules.attention.control.alignment",
        "ei2_modules.attention.control.options",
    )
)
checksum = pack("nodes.host.conditioning").checksum

SOURCE, TARGET = "red circle on blue", "green circle on blue"
OWN_TEXT, PROMPT, NOTHING = caption(1), caption(5), caption(3)
NONE = {"cross_share": 0.0, "self_share": 0.0}


def text(sentence, length=77):
    found = sentence.split()
    tokens = [words.Token(0, None, "start"), *(words.Token(word, i) for i, word in enumerate(found))]
    tokens.append(words.Token(1, None, "end"))
    tokens += [words.Token(1, None, "padding")] * (length - len(tokens))
    return words.Text(tuple(found), tuple(tokens))


def prompt_edit(source=SOURCE, target=TARGET, weights=None, blend="", texts=(OWN_TEXT, PROMPT)):
    """As Prompt Edit makes it, of random embeddings."""
    aligned = alignments.align(text(source, texts[0][0][0].shape[1]), text(target, texts[1][0][0].shape[1]))
    factors = weights and words.word_weights(aligned.target, weights)
    inverts = frozenset(map(checksum, (texts[0], NOTHING)))
    return prompts.PromptEdit(*texts, aligned, factors, prompts._blend(aligned, blend), inverts)


def controls(edit=None, mask=None, null_text=None, **chosen):
    """EI2_CONTROL of kind custom."""
    return control.Control(edit or prompt_edit(), options.ControlOptions(**chosen), mask, null_text)


def fitted(m, latent, cfg=3.0, branch="source only"):
    """EI2_NULL_TEXT."""
    return run(
        "null_text.NullTextInversion", model=m, latent=latent, positive=OWN_TEXT, negative=NOTHING, cfg=cfg,
        inner_steps=4, learning_rate=0.02, early_stop=0.0, frames="shared", branch=branch, steps="all",
    )[0]  # fmt: skip


def inverted(m, latents=None, steps=4):
    return invert(m, latents, OWN_TEXT, steps=steps)[0]


def edited(m, latent, chosen=None, positive=PROMPT, cfg=3.0, **more):
    """Latents of the edit by EI² Sampler."""
    return sample(m, latent, positive, NOTHING, cfg, control=chosen, **more)


def guider(m, latent, chosen, positive=PROMPT, cfg=3.0):
    return run(
        "attention_control.EditGuider",
        model=m,
        control=chosen,
        latent=latent,
        positive=positive,
        negative=NOTHING,
        cfg=cfg,
    )[0]
