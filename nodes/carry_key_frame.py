"""'Carry Key Frame': one frame of an edit, put into all others along the motion of the clip."""

from ..ei2_modules.atlas.checks import LEAST_SIDE, fitted_mask
from ..ei2_modules.errors import EI2Error
from ..ei2_modules.motion import carry, object_motion
from ..ei2_modules.motion.filters import grown
from ..ei2_modules.motion.flow import checked
from .host import optical_flow
from .host.api import CATEGORY, FLOW, io, schema
from .host.images import frames_of, image_of, masks_of
from .host.progress import Progress, say

TYPICAL = -1  # key_frame: the one that is found


class CarryKeyFrame(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2CarryKeyFrame",
            search="key frame, propagate, ebsynth, shape, consistent",
            display_name="Carry Key Frame",
            category=CATEGORY,
            description="Puts the object of one edited frame into all others, moved, turned and scaled as the object "
            "of the source is. For edits of shape, which come out a little different in every frame.",
            inputs=[
                io.Image.Input("images", tooltip="The edited clip, from VAE Decode."),
                io.Image.Input("source", tooltip="The clip that was edited: its motion is taken."),
                io.Mask.Input(
                    "mask",
                    tooltip="Where the object is in the source, one a frame, from a tracker or drawn. It must fit.",
                ),
                io.Int.Input(
                    "key_frame",
                    default=TYPICAL,
                    min=TYPICAL,
                    max=9999,
                    tooltip="The frame that looks right, counted from 0. -1: the one nearest to all the others.",
                ),
                io.Float.Input(
                    "grow",
                    default=0.05,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    round=0.001,
                    tooltip="How far around the mask the edit may reach, as a share of the longer side.",
                ),
                FLOW.Input("flow", optional=True, tooltip="Of the source. Without it, it is computed by auto."),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The edited clip with that frame's object everywhere."),
                io.String.Output(display_name="report", tooltip="Which frame, and how the object moves."),
            ],
        )

    @classmethod
    def execute(cls, images, source, mask, key_frame, grow, flow=None):
        edited, frames = frames_of(images, "images").cpu(), frames_of(source, "source").cpu()
        _check(edited, frames, key_frame)
        masks = fitted_mask(masks_of(mask, "mask").cpu(), frames).expand(len(frames), -1, -1, -1)
        seen = [bool((one > 0.5).any()) for one in masks]
        if not any(seen) or (key_frame != TYPICAL and not seen[key_frame]):
            where = "every frame" if not any(seen) else f"frame {key_frame}, counted from 0"
            raise EI2Error(
                f"The mask is empty in {where}: there is no object to carry. Draw it, or choose a frame that has it."
            )
        typical, n = key_frame == TYPICAL, len(frames)
        progress = Progress(None, (0 if flow else n - 1) + n + (sum(seen) if typical else 0))
        if flow:
            flow = checked(flow, n, frames.shape[-2:])
        else:
            flow = optical_flow.estimated(frames, on_pair=lambda done, there: progress.advance_to(done))
        motions, wide = object_motion.motions(frames, masks, flow, progress.advance), grown(masks, grow)
        key = carry.most_typical(edited, wide, motions, progress.advance) if typical else key_frame
        report = told(key, typical, seen, object_motion.described(motions[seen]))
        say(report)
        return io.NodeOutput(image_of(carry.carried(edited, wide, motions, key)), report)


def told(key: int, found: bool, seen: list[bool], moves: str) -> str:
    """In words; frames counted from 0, as the input counts."""
    lines = [f"Frame {key} is carried{', which differs least from the others' if found else ''}.", moves]
    without = [str(t) for t, there in enumerate(seen) if not there]
    if without:
        lines.append(f"Left as they are, their masks being empty: {', '.join(without)}.")
    return "\n".join(lines)


def _check(edited, frames, key_frame: int) -> None:
    if edited.shape != frames.shape:
        (n, _, h, w), (m, _, height, width) = edited.shape, frames.shape
        raise EI2Error(
            f"images are {n} frames of {w}x{h}, source {m} frames of {width}x{height}. Wire the clip that was edited, "
            "at the size of the edit."
        )
    if len(frames) < 2:
        raise EI2Error("1 frame: there is no other to carry it to. Give 2 at least.")
    h, w = frames.shape[-2:]
    if min(h, w) < LEAST_SIDE:
        raise EI2Error(f"Frames are {w}x{h}: {LEAST_SIDE} px at least is needed. Take larger ones.")
    for name, clip in (("images", edited), ("source", frames)):
        for t, frame in enumerate(clip):
            if not frame.isfinite().all():
                raise EI2Error(
                    f"{name} has values that are not finite in frame {t}, counted from 0. Decode it again, with "
                    "--fp32-vae if the VAE overflows."
                )
    if not TYPICAL <= key_frame < len(frames):
        raise EI2Error(f"key_frame is {key_frame}: the clip has frames 0 to {len(frames) - 1} (-1: the most typical).")
