"""The node 'EI² Video Metrics': embeds the frames and the prompt with CLIP and reports what `metrics` measures.

It stands beside Save Video and must never stop it: a figure that cannot be given is left out, with a note.
"""

from ..ei2_modules.metrics.figures import check_image
from ..ei2_modules.metrics.report import measure
from .host.api import CATEGORY, FLOW, io, schema
from .host.clip_embeddings import embeddings


class VideoMetrics(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2VideoMetrics",
            search="psnr, flicker, consistency, quality, clip score",
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
                    tooltip="The clip before the edit, with the same number of frames and the same size; rows and "
                    "columns that VAE Encode cuts off are cut off here too. Adds its own figures for comparison, "
                    "PSNR, and its motion as the guide of the warp error.",
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
                FLOW.Input(
                    "flow",
                    optional=True,
                    tooltip="The source's, from Optical Flow: the guide of the warp error. Without it, it is computed.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The figures in words, for Preview as Text."),
                io.String.Output(display_name="table", tooltip="The figures of every frame, tab-separated."),
            ],
        )

    @classmethod
    def execute(cls, images, source=None, clip_vision=None, clip=None, prompt="", flow=None):
        check_image(images, "images")
        seen, notes = embeddings(images, source, clip_vision, clip, prompt)
        report, table, figures = measure(images, source, seen.images, seen.source, seen.text, notes, flow)
        return io.NodeOutput(report, table, ui={"text": (report,), "metrics": [figures]})
