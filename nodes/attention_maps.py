"""'Attention Maps': where the model sees each word of the caption in the clip."""

import string

from ..ei2_modules.attention.control.words import words_in
from ..ei2_modules.errors import EI2Error
from .host.api import CATEGORY, io, schema
from .host.control.looking import LookingEverywhere
from .host.control.texts import read_text
from .host.control.word_pictures import word_pictures
from .host.images import frames_of
from .host.inflating.inflate import inflated_of
from .host.sampling import attention_maps
from .host.sampling.inverted import read_inverted


class AttentionMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2AttentionMaps",
            search="cross attention, heat map, word mask, daam",
            display_name="Attention Maps",
            category=CATEGORY,
            description="Shows where the model sees each word of a text in the clip, for every frame and every block "
            "of the UNet: for choosing blend words and thresholds by eye.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the clip was inverted with."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Latent.Input("latent", tooltip="From DDIM Invert Video."),
                io.String.Input("caption", multiline=True, tooltip="What the clip shows."),
                io.String.Input(
                    "words", default="", optional=True,
                    tooltip="Words to look for, as 'circle, sky'. Empty: every word of the caption.",
                ),
                io.Float.Input(
                    "threshold", default=0.4, min=0.0, max=1.0, step=0.05, round=0.001, optional=True,
                    tooltip="Of the mask: where the words together are seen more than this share of their greatest.",
                ),
                io.Image.Input("images", optional=True, tooltip="The clip's frames, to draw the maps over them."),
            ],
            outputs=[
                io.Image.Output(display_name="maps", tooltip="A picture a frame: words side by side, blocks below."),
                io.Mask.Output(display_name="mask", tooltip="Where the words are seen: for Attention Control."),
                io.String.Output(display_name="report", tooltip="In which blocks each word is seen most sharply."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, clip, latent, caption, words="", threshold=0.4, images=None):
        inflated = inflated_of(model, "Attention Maps")
        start = read_inverted(model, inflated, latent, 0, False)
        text = read_text(clip, caption)
        found = LookingEverywhere(len(start.samples), _named(text, words))
        images = None if images is None else frames_of(images, "images").movedim(1, -1)
        _check_images(images, found.frames)
        positive = clip.encode_from_tokens_scheduled(clip.tokenize(caption))
        attention_maps.look(model, inflated.spec, positive, start, found)
        blocks = found.blocks()
        mask = attention_maps.mask(model, found, tuple(start.samples.shape[-2:]), threshold)
        return io.NodeOutput(word_pictures(found, blocks, images), mask, attention_maps.report(found))


def _named(text, words: str) -> dict[str, list[int]]:
    """Word -> places of its tokens."""
    written = [word for word in dict.fromkeys(text.words) if word.strip(string.punctuation)]
    if not written:
        raise EI2Error("The caption has no words, so there is nothing to look for. Write what the clip shows.")
    phrases = [phrase.strip() for phrase in words.replace("\n", ",").split(",") if phrase.strip()]
    return {phrase: words_in(text, phrase) for phrase in phrases or written}


def _check_images(images, frames: int) -> None:
    if images is not None and len(images) != frames:
        raise EI2Error(f"images has {len(images)} frames and the latent {frames}. Wire the frames that were inverted.")
