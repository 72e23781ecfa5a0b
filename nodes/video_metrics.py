"""The node 'EI² Video Metrics': embeds the frames and the prompt with CLIP and reports what `metrics` measures."""

from ..ei2_modules.errors import EI2Error
from ..ei2_modules.metrics import figures as metrics
from ..ei2_modules.metrics.report import measure
from .host.api import CATEGORY, io
from .host.clip_embeddings import embed_frames, embed_text


class VideoMetrics(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EI2VideoMetrics",
            display_name="EI² Video Metrics",
            category=CATEGORY,
            description="Measures a clip: CLIP frame consistency, text alignment, motion, warp error and PSNR to the "
            "source, with the source clip's own figures beside them. Every optional input adds figures.",
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "images", tooltip="The frames to measure, in order. At least two for anything about time."
                ),
                io.Image.Input(
                    "source",
                    optional=True,
                    tooltip="The clip before the edit, with the same number of frames and the same size. "
                    "Adds its own figures for comparison, PSNR, and its motion as the guide of "
                    "the warp error.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Needed for frame consistency and text alignment. The middle square of "
                    "each frame is looked at. Published figures mostly use "
                    "clip-vit-large-patch14.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Needed for text alignment: the full text encoder of the same CLIP as "
                    "clip_vision. The one inside an SD 1.x checkpoint lacks the text projection.",
                ),
                io.String.Input(
                    "prompt",
                    optional=True,
                    multiline=True,
                    default="",
                    tooltip="The edit prompt the frames are compared with. Empty: no text alignment.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The figures in words, for Preview as Text."),
                io.String.Output(display_name="table", tooltip="The figures of every frame, tab-separated."),
            ],
        )

    @classmethod
    def execute(cls, images, source=None, clip_vision=None, clip=None, prompt=""):
        if source is not None:
            metrics.check_pair(images, source)
        embeds = source_embeds = text = why = None
        if clip_vision is not None:
            embeds = embed_frames(clip_vision, images)
            source_embeds = None if source is None else embed_frames(clip_vision, source)
            text, why = _text(clip, prompt, embeds.shape[-1])
        notes = () if why is None else (why,)
        report, table, figures = measure(images, source, embeds, source_embeds, text, notes)
        return io.NodeOutput(report, table, ui={"text": (report,), "metrics": [figures]})


def _text(clip, prompt: str, width: int):
    """The prompt's embedding and None, or None and the reason in words: a missing figure is no reason to stop."""
    if not prompt.strip():
        return None, None
    if clip is None:
        return None, "text alignment needs a CLIP beside the prompt: connect one to clip."
    try:
        text = embed_text(clip, prompt)
        metrics.check_widths(width, text.shape[-1])
    except EI2Error as error:
        return None, str(error)
    return text, None
