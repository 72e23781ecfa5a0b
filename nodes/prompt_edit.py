"""'Prompt Edit': what a clip shows and what it shall show, word by word."""

from .host.api import CATEGORY, PROMPT_EDIT, io, schema
from .host.control.prompt_edit import describe, make_prompt_edit
from .host.progress import show_text


class PromptEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2PromptEdit",
            search="prompt to prompt, caption, video edit, word swap",
            expert="weights",
            display_name="Prompt Edit",
            category=CATEGORY,
            description="Encodes the clip's caption and the new prompt, and finds which word of one takes the place of "
            "which word of the other. Write the prompt by changing words of the caption.",
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint (SD1.x, SD2.x, SDXL)."),
                io.String.Input("caption", multiline=True, tooltip="What the clip shows: the caption it is tuned on."),
                io.String.Input("prompt", multiline=True, tooltip="What it shall show, in the caption's own words."),
                io.String.Input(
                    "weights", default="", optional=True,
                    tooltip="How strongly words of the prompt act, as 'green: 2, circle: 0.5'. 1 is no change.",
                ),
                io.String.Input(
                    "blend_words", default="", optional=True,
                    tooltip="Where the clip may change: words of either text, such as 'circle, sky'; after a minus, "
                    "words where it must not: '-face'. Empty: the words that changed. See them in Attention Maps.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="caption", tooltip="Of the caption, for One-Shot Tune."),
                io.Conditioning.Output(display_name="prompt", tooltip="Of the prompt, for the sampler's positive."),
                PROMPT_EDIT.Output(display_name="EI2_PROMPT_EDIT", tooltip="For Attention Control."),
                io.String.Output(display_name="report", tooltip="Which word became which, as text."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, clip, caption, prompt, weights="", blend_words=""):
        edit = make_prompt_edit(clip, caption, prompt, weights, blend_words)
        report = describe(edit)
        show_text(report)
        return io.NodeOutput(edit.caption, edit.prompt, edit, report)
