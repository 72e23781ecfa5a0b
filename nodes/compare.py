"""'EI² Compare': two to four clips beside each other, behind a line to drag, or as differences."""

from .host import comparison
from .host.api import CATEGORY, check_choices, io, schema
from .host.files import looping_video
from .host.progress import show_text

MODES = ("side by side", "wipe", "difference")
LETTERS = "abcd"
LABEL = "What stands above the clip of this letter; a second line is drawn smaller. Empty: the letter."


class Compare(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2Compare",
            search="compare, before after, side by side, wipe, slider, grid, difference",
            display_name="EI² Compare",
            category=CATEGORY,
            description="Two to four clips with labels: side by side, behind a line that wipes over them and that you "
            "drag in the node, or as differences to the first. A looping video and a contact sheet, in the node and as "
            "files.",
            is_output_node=True,
            inputs=[
                io.Image.Input("a", tooltip="The first clip, such as the source: the others take its size."),
                io.Image.Input("b", tooltip="The second clip, such as the edit."),
                io.String.Input("label_a", default="source", tooltip=LABEL),
                io.String.Input("label_b", default="edit", tooltip=LABEL),
                io.Combo.Input(
                    "mode", options=list(MODES), default=MODES[0],
                    tooltip="side by side: all in a row. wipe: one over the other, with lines to drag in the node; in "
                    "the video the line moves by itself. difference: the first clip, and how far the others are from "
                    "it.",
                ),
                io.Float.Input(
                    "fps", default=8.0, min=0.5, max=120.0, step=0.5, round=0.01,
                    tooltip="Frames a second of the video. Use the clip's own.",
                ),
                io.Image.Input("c", optional=True, tooltip="A third clip."),
                io.Image.Input("d", optional=True, tooltip="A fourth clip."),
                io.String.Input("label_c", default="", optional=True, tooltip=LABEL),
                io.String.Input("label_d", default="", optional=True, tooltip=LABEL),
                io.Float.Input(
                    "gain", default=4.0, min=1.0, max=64.0, step=1.0, round=0.01, optional=True,
                    tooltip="Of the difference view alone: how many times stronger the differences are drawn.",
                ),
                io.String.Input(
                    "filename_prefix", default="EI2_compare", optional=True,
                    tooltip="Where in ComfyUI's output folder the video and the sheet are kept; folders before the "
                    "name are made. Empty: in the temp folder, until ComfyUI starts again.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="comparison", tooltip="The video's frames once, for Create Video."),
                io.Image.Output(display_name="sheet", tooltip="The contact sheet: a row a clip, 8 frames at most."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, mode=None, filename_prefix=None):
        chosen = check_choices(cls, mode=mode)
        return chosen if chosen is not True else looping_video.prefix_fault(filename_prefix or "") or True

    @classmethod
    def execute(
        cls, a, b, label_a, label_b, mode, fps, c=None, d=None, label_c="", label_d="", gain=4.0,
        filename_prefix="EI2_compare",
    ):  # fmt: skip
        clips = {name: clip for name, clip in zip(LETTERS, (a, b, c, d), strict=True) if clip is not None}
        labels = dict(zip(LETTERS, (label_a, label_b, label_c, label_d), strict=True))
        panels = comparison.equal(clips, [labels[name].strip() or name for name in clips])
        shown = comparison.differences(panels, gain) if mode == "difference" else panels
        frames = comparison.wipe(shown, fps) if mode == "wipe" else comparison.across(shown)
        images, sheet = comparison.images(frames), comparison.images([comparison.sheet(shown)])
        found = {
            "images": [looping_video.save_video(images, filename_prefix, fps, cls)],
            "animated": (True,),
            "sheet": [looping_video.save_sheet(sheet, filename_prefix, cls)],
            "labels": tuple(shown.labels),
        }
        if mode == "wipe":
            found["strip"] = [looping_video.save_video(comparison.images(comparison.strip(shown)), "", fps, cls)]
        show_text(said := comparison.report(shown, images, mode, fps))
        return io.NodeOutput(images, sheet, ui=found | {"text": (said,)})
