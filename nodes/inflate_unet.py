"""'Inflate UNet to EI²': an image MODEL in, a video MODEL out."""

from ..ei2_modules.config import (
    ATTENTION_NAMES,
    CUSTOM,
    GROUP_NORMS,
    MODES,
    PER_FRAME,
    STAM_INITS,
    TEMPORAL_MODULES,
    InflateOptions,
)
from .host.api import CATEGORY, WEIGHTS, check_choices, io, schema, seed_input
from .host.inflating.inflate import inflate


class InflateUNet(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2InflateUNet",
            search="video edit, video to video, inflate, temporal, tune a video",
            expert="temporal_module, attention, stam_init, seed, allow_mismatch, group_norm",
            display_name="Inflate UNet to EI²",
            category=CATEGORY,
            description="Lets an image model (SD1.x, SD2.x, SDXL) see all frames of a clip at once: frame attention in "
            "place of self-attention, and a temporal module after every feed-forward. The model that comes in is not "
            "changed.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="A checkpoint of SD1.x, SD2.x or SDXL (eps or v), with or without LoRAs."
                ),
                io.Combo.Input(
                    "mode",
                    options=[*MODES, CUSTOM],
                    default="EI²",
                    tooltip="EI²: FFAM + STAM, the paper's method. Tune-A-Video: the method it is compared with. "
                    "dense: full attention over all frames, without tuning. custom: the two choices below. Video-P2P, "
                    "vid2vid-zero, FateZero: what their released codes make of the UNet; the first is to be tuned.",
                ),
                io.Int.Input(
                    "coarse_ratio",
                    default=2,
                    min=1,
                    max=8,
                    tooltip="r: other frames are seen r times coarser in height and width. 2 suits 8 frames; take 4 "
                    "above 12 frames. Used by FFAM.",
                ),
                io.Combo.Input(
                    "temporal_module",
                    options=list(TEMPORAL_MODULES),
                    default="STAM",
                    tooltip="Only with mode custom: the module after the feed-forward (the paper's Figure 4).",
                ),
                io.Combo.Input(
                    "attention",
                    options=list(ATTENTION_NAMES),
                    default="FFAM",
                    tooltip="Only with mode custom: which tokens of other frames a frame sees (the paper's Figure 5).",
                ),
                io.Combo.Input(
                    "stam_init",
                    options=list(STAM_INITS),
                    default="zero-query",
                    tooltip="Start of STAM. zero-query: exactly no effect before tuning. random: the paper read "
                    "literally, nearly no effect. clamp: as Tune-A-Video until the norm reaches 1. Tune-A-Video: as "
                    "clamp, but the output's bias is random, of any module, as its released code leaves it. "
                    "With weights wired, theirs is used.",
                ),
                seed_input(
                    33,
                    "Of the temporal module's random start. Keep it: a new seed means tuning again. "
                    "With weights wired it plays no part.",
                ),
                WEIGHTS.Input(
                    "weights",
                    optional=True,
                    tooltip="Tuned weights from One-Shot Tune or Load EI² Weights, for this very checkpoint.",
                ),
                io.Boolean.Input(
                    "allow_mismatch",
                    default=False,
                    optional=True,
                    tooltip="Off: weights tuned on another checkpoint are refused. On: only a warning in the log, as "
                    "long as the shapes are the same.",
                ),
                io.Combo.Input(
                    "group_norm",
                    options=list(GROUP_NORMS),
                    default=PER_FRAME,
                    optional=True,
                    tooltip="What the UNet's group norms average. per frame: each picture, as in ComfyUI. "
                    "pooled: all frames of the clip together, as Tune-A-Video's released code. Tuned weights fit what "
                    "they were tuned with. Modes Video-P2P, vid2vid-zero and FateZero always pool.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The inflated model.")],
        )

    @classmethod
    def validate_inputs(cls, mode=None, temporal_module=None, attention=None, stam_init=None, group_norm=None):
        return check_choices(
            cls, mode=mode, temporal_module=temporal_module, attention=attention, stam_init=stam_init,
            group_norm=group_norm,
        )  # fmt: skip

    @classmethod
    def execute(cls, model, mode, coarse_ratio, temporal_module, attention, stam_init, seed, weights=None,
                allow_mismatch=False, group_norm=PER_FRAME):  # fmt: skip
        options = InflateOptions.from_mode(
            mode, attention, temporal_module, coarse_ratio=coarse_ratio, stam_init=stam_init, seed=seed,
            group_norm=group_norm,
        )  # fmt: skip
        return io.NodeOutput(inflate(model, options, weights, allow_mismatch))
