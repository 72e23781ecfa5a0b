"""Carry Key Frame on the host: what it gives, and what it refuses."""

import comfy.model_management
import pytest
import torch

from tools.server.in_process import pack

from .mini import run

EI2Error = pack("ei2_modules.errors").EI2Error
scenes, clips = (pack(f"ei2_modules.demo.{name}") for name in ("scenes", "clips"))


def moving(frames: int = 4, shape: str = "square", motion: str = "slide"):
    """(images, masks) of a thing that moves over a lit ground."""
    scene = scenes.Scene((scenes.Thing(shape, "red"),), "purple", light=(0.15, -0.1))
    return scenes.render(clips.moving(scene, motion, frames))


def carry(**inputs):
    images, masks = moving()
    return run("carry_key_frame.CarryKeyFrame", **{
        "images": images, "source": images, "mask": masks, "key_frame": -1, "grow": 0.05, **inputs,
    })  # fmt: skip


def flow_of(images):
    return run("optical_flow.OpticalFlow", images=images, method="auto", changing_light=False)[0]


def test_one_frames_object_is_in_all():
    """Four shapes, one a frame, become the key frame's."""
    source, masks = moving(6)
    edited = torch.cat([moving(6, shape)[0][t : t + 1] for t, shape in enumerate(["star", "circle"] * 3)])
    made, report = carry(images=edited, source=source, mask=masks, key_frame=1)
    truth = moving(6, "circle")[0]
    inside = (masks > 0.9)[..., None].expand_as(truth)
    assert (made - truth)[inside].abs().mean() < 0.3 * (edited - truth)[inside].abs().mean()
    assert torch.equal(made[1], edited[1]) and report.startswith("Frame 1 is carried.\n")


def test_the_frame_is_found_and_said():
    images, masks = moving()
    edited = images.clone()
    edited[2] = 1 - edited[2]
    masks[3] = 0
    made, report = carry(images=edited, mask=masks)
    assert "is carried, which differs least from the others." in report and "Frame 2 is" not in report
    assert report.endswith("Left as they are, their masks being empty: 3.")
    assert torch.equal(made[3], edited[3])


@pytest.mark.parametrize("at", [1, 2, 5, 6, 9])
def test_it_can_be_stopped(monkeypatch, at):
    """While the flow is computed, the motion fitted, and the frames compared."""
    calls = []

    def interrupt():
        calls.append(0)
        if len(calls) == at:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        carry()


@pytest.mark.parametrize("inputs", [{}, {"key_frame": 2}, {"empty": 1}, {"wired": True}], ids=str)
def test_the_bar_ends_at_its_end(monkeypatch, inputs):
    node, bars = pack("nodes.carry_key_frame"), []
    shown = node.Progress
    monkeypatch.setattr(node, "Progress", lambda *given: bars.append(shown(*given)) or bars[-1])
    masks = MASKS.clone()
    masks[: inputs.get("empty", 0)] = 0
    carry(mask=masks, flow=flow_of(IMAGES) if "wired" in inputs else None, key_frame=inputs.get("key_frame", -1))
    assert [bar.done for bar in bars] == [bar.total for bar in bars] != []


def test_the_motion_is_told_to_the_last_frame_that_shows_it():
    images, masks = moving(motion="grow")
    masks[3] = 0
    _, report = carry(images=images, source=images, mask=masks)
    assert float(report.split("becomes ")[1].split()[0]) > 1.5


def test_a_wired_flow_is_taken(monkeypatch):
    images, _ = moving()
    flow = flow_of(images)
    expected, _ = carry()
    monkeypatch.setattr(pack("nodes.host.optical_flow"), "estimator", lambda *a: pytest.fail("computed again"))
    assert torch.equal(carry(flow=flow)[0], expected)


IMAGES, MASKS = moving()
EMPTY = torch.zeros_like(MASKS)
SPOILED = IMAGES.clone()
SPOILED[2, 5, 5] = float("nan")
REFUSED = {
    "other length": ({"images": IMAGES[:3]}, "images are 3 frames of 64x64, source 4 frames of 64x64. Wire the clip"),
    "other size": ({"source": torch.rand(4, 32, 48, 3)}, "images are 4 frames of 64x64, source 4 frames of 48x32"),
    "one frame": ({"images": IMAGES[:1], "source": IMAGES[:1], "mask": MASKS[:1]}, "1 frame: there is no other"),
    "too small": (
        {"images": IMAGES[:, :31], "source": IMAGES[:, :31], "mask": MASKS[:, :31]}, "Frames are 64x31: 32 px at least",
    ),
    "no numbers in the edit": ({"images": SPOILED}, "images has values that are not finite in frame 2, counted from 0"),
    "no numbers in the source": ({"source": SPOILED}, "source has values that are not finite in frame 2"),
    "frame beyond": ({"key_frame": 4}, "key_frame is 4: the clip has frames 0 to 3"),
    "masks of another clip": ({"mask": MASKS[:3]}, "Got 3 masks in mask for 4 frames"),
    "mask of another shape": ({"mask": torch.ones(1, 64, 20)}, "mask is 20x64, the images are 64x64"),
    "no object": ({"mask": EMPTY}, "The mask is empty in every frame: there is no object to carry"),
    "no object there": (
        {"mask": torch.cat([EMPTY[:1], MASKS[1:]]), "key_frame": 0}, "The mask is empty in frame 0, counted from 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("inputs", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(inputs, message):
    with pytest.raises(EI2Error, match=message.replace("(", r"\(")):
        carry(**inputs)


def test_flow_of_another_clip_is_refused():
    flow = flow_of(IMAGES[:3])
    with pytest.raises(EI2Error, match="The flow is of 3 frames of 64x64, the images are 4 frames"):
        carry(flow=flow)
