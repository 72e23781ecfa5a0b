"""'Attention Control': how an edit follows its clip; and 'EI² Edit Guider', the same for SamplerCustomAdvanced."""

from ..ei2_modules.attention.control.options import CUSTOM, KINDS, SOURCES, ControlOptions
from .host import conditioning
from .host.api import CATEGORY, CONTROL, NULL_TEXT, PROMPT_EDIT, check_choices, io, schema
from .host.control.guider import Control
from .host.images import shares_of
from .host.inflating.inflate import inflated_of
from .host.progress import show_text
from .host.sampling.controlled import controlled_guider
from .host.sampling.inverted import read_inverted


class AttentionControl(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2AttentionControl",
            search="prompt to prompt, video p2p, vid2vid-zero, fatezero, attention injection",
            expert="cross_share, self_share, temporal_share, feature_share, blend_threshold, noise_share",
            display_name="Attention Control",
            category=CATEGORY,
            description="Lets an edit take its attention from the clip, so that things stay where they are. Wire it "
            "into the EI² Sampler or the EI² Edit Guider.",
            inputs=[
                PROMPT_EDIT.Input("prompt_edit", tooltip="From Prompt Edit."),
                io.Combo.Input(
                    "kind", options=[*KINDS, CUSTOM], default="appearance",
                    tooltip="What is edited. appearance: colours, textures, one thing for another of its shape. shape: "
                    "another outline. style: the whole picture. background: what is around. Then published systems "
                    "with their own values. custom: the numbers below.",
                ),
                io.Float.Input("cross_share", **_share(0.8, "of text-attention, which says where things are")),
                io.Float.Input("self_share", **_share(0.6, "of frame attention, for outlines and less flicker")),
                io.Float.Input("temporal_share", **_share(0.0, "of the temporal modules (Video-P2P)")),
                io.Float.Input("feature_share", **_share(0.0, "of features, which hold the picture as it is")),
                io.Float.Input(
                    "blend_threshold", default=0.0, min=0.0, max=0.99, step=0.05, round=0.001,
                    tooltip="Only with kind custom: the clip stays as it is where the edit's words are seen less than "
                    "this share of their greatest. 0: no local blend.",
                ),
                io.Float.Input("noise_share", **_share(0.0, "of fresh noise at the old word, for shapes")),
                io.Combo.Input(
                    "source", options=list(SOURCES), default=SOURCES[0],
                    tooltip="Where the clip's own attention comes from. along the inversion: exactly the clip. own "
                    "prediction: sampled beside the edit; needs no record. null text: the same with guidance.",
                ),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip="Where the clip may change, one for all frames or one each; instead of the words' places.",
                ),
                NULL_TEXT.Input("null_text", optional=True, tooltip="From Null-Text Inversion, for source null text."),
            ],
            outputs=[CONTROL.Output(display_name="EI2_CONTROL", tooltip="For the EI² Sampler or EI² Edit Guider.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, kind=None, source=None):
        return check_choices(cls, kind=kind, source=source)

    @classmethod
    def execute(cls, prompt_edit, kind, cross_share, self_share, temporal_share, feature_share, blend_threshold,
                noise_share, source, mask=None, null_text=None):  # fmt: skip
        options = ControlOptions.of_kind(
            kind, source, cross_share=cross_share, self_share=self_share, temporal_share=temporal_share,
            feature_share=feature_share, blend_threshold=blend_threshold, noise_share=noise_share,
        )  # fmt: skip
        mask = None if mask is None else shares_of(mask, "The mask of Attention Control")
        show_text(options.describe())
        return io.NodeOutput(Control(prompt_edit, options, mask, null_text))


class EditGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2EditGuider",
            search="prompt to prompt, guider, video edit",
            display_name="EI² Edit Guider",
            category=CATEGORY,
            description="Attention control as a GUIDER for SamplerCustomAdvanced, with the sigmas of EI² DDIM Sampler "
            "and its sampler or another of one call a step (euler, ddim, dpmpp_2m).",
            inputs=[
                io.Model.Input("model", tooltip="The model that the clip was inverted with."),
                CONTROL.Input("control", tooltip="From Attention Control."),
                io.Latent.Input("latent", tooltip="From DDIM Invert Video; wire it into SamplerCustomAdvanced too."),
                io.Conditioning.Input("positive", tooltip="Prompt Edit's prompt, also through ControlNet nodes."),
                io.Conditioning.Input("negative", tooltip="What the clip shall not show; empty text is the paper's."),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Guidance: 7.5 is the paper's.",
                ),
            ],
            outputs=[io.Guider.Output(display_name="GUIDER", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, control, latent, positive, negative, cfg):
        inflated = inflated_of(model, "EI² Edit Guider")
        start = read_inverted(model, inflated, latent, 0, False)
        conditioning.check(negative, "negative", inflated.spec)
        guider = controlled_guider(model, inflated, control, start, positive, cfg, "EI² Edit Guider")
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return io.NodeOutput(guider)


def _share(default: float, what: str) -> dict:
    return {
        "default": default, "min": 0.0, "max": 1.0, "step": 0.05, "round": 0.001,
        "tooltip": f"Only with kind custom: the share {what}, that is taken from the clip, in steps from the first on.",
    }  # fmt: skip
