"""The node 'EI² Video Metrics': embeds the frames and the prompt with CLIP and reports what `metrics` measures."""

from ..ei2_modules.metrics import figures as metrics
from ..ei2_modules.metrics.report import measure
from .host.api import CATEGORY, io
from .host.attempt import attempt
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
        notes = []
        source = _comparable(images, source, notes)
        embeds, source_embeds = (_embeds(clip_vision, frames, notes) for frames in (images, source))
        text = None if embeds is None else _text(clip, prompt, embeds.shape[-1], notes)
        given = images, source, embeds, source_embeds, text, tuple(notes)
        found, why = attempt("The clip could not be measured", measure, *given)
        report, table, figures = found or ("\n".join([why, *notes]), "", {})
        return io.NodeOutput(report, table, ui={"text": (report,), "metrics": [figures]})


def _comparable(images, source, notes: list[str]):
    """The source, cut as VAE Encode cuts it; None where there is none to compare with."""
    if source is None:
        return None
    cut = metrics.cropped_as_encoded(source, images)
    _, why = attempt("The source could not be compared", metrics.check_pair, images, cut)
    if why is not None:
        notes.append(f"{why} Its figures are left out.")
        return None
    if cut.shape != source.shape:
        before, after = (f"{clip.shape[2]}x{clip.shape[1]}" for clip in (source, cut))
        notes.append(f"the source was cut from {before} to {after} in the middle, as VAE Encode cuts it.")
    return cut


def _embeds(clip_vision, frames, notes: list[str]):
    if clip_vision is None or frames is None:
        return None
    embeds, why = attempt("Frame consistency could not be measured", embed_frames, clip_vision, frames)
    notes += [why] if why else []
    return embeds


def _text(clip, prompt: str, width: int, notes: list[str]):
    """The prompt's embedding; a missing figure is no reason to stop."""
    if not prompt.strip():
        return None
    if clip is None:
        notes.append("text alignment needs a CLIP beside the prompt: connect one to clip.")
        return None
    text, why = attempt("Text alignment could not be measured", _fitting_text, clip, prompt, width)
    notes += [why] if why else []
    return text


def _fitting_text(clip, prompt: str, width: int):
    text = embed_text(clip, prompt)
    metrics.check_widths(width, text.shape[-1])
    return text
