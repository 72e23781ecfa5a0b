"""A start and a fit on a rendered clip whose maps are known, the gates, and what is refused before any work."""

from dataclasses import replace

import pytest
import torch

from benchmarks.atlas.measures import alpha_iou, map_errors
from benchmarks.atlas.scenes import MOTIONS, Scene, boxes
from ei2_modules.atlas import gates
from ei2_modules.atlas.chain import chained
from ei2_modules.atlas.checks import checked_frames, checked_mask, fingerprint, listed
from ei2_modules.atlas.fit import Fit
from ei2_modules.atlas.maps import Maps, pixels
from ei2_modules.atlas.options import FitOptions
from ei2_modules.atlas.start import is_box, splatted, start
from ei2_modules.atlas.texture import Box
from ei2_modules.errors import EI2Error
from ei2_modules.motion.flow import Flow, flow_of

SCENE = Scene(replace(MOTIONS["slide"], camera=(0.06, 0.02, 0.02, 2, 0), thing=(0.1, 0.03, 8, 0.05)), 6, (48, 80), 1)
OPTIONS, QUICK = FitOptions(steps=30), FitOptions(steps=2)


@pytest.fixture(scope="module")
def clip():
    """(frames, true alpha, true flow, box masks)."""
    frames, alpha = SCENE.render()
    return frames, alpha, SCENE.flow(alpha), (boxes(alpha, 3),)


@pytest.fixture(scope="module")
def begun(clip):
    return start(clip[0], clip[3], clip[2], OPTIONS)


@pytest.fixture(scope="module")
def fitted(clip, begun):
    return Fit(clip[0], clip[3], clip[2], begun, OPTIONS).run()


def fit(clip, options, masks=None):
    frames, _, flow, own = clip
    masks = own if masks is None else masks
    return Fit(frames, masks, flow, start(frames, masks, flow, options), options)


def rendered(atlas):
    return torch.cat([atlas.render(c) for c in atlas.chunks()])


def psnr(a, b):
    return (-10 * (a - b).square().mean((1, 2, 3)).log10()).mean().item()


def test_the_start_finds_the_maps(clip, begun):
    for k in (0, 1):
        near, far = map_errors(SCENE, clip[1], begun.maps[k], k)
        assert near.mean() < 0.1 and far.mean() < 0.2
    assert not begun.tight  # the boxes hold much of the background
    assert alpha_iou(begun.alphas[0], clip[1]) > 0.8 > alpha_iou(clip[3][0], clip[1])


def test_standing_still_would_be_seen(clip):
    """The measure: maps that do not move are wrong by the motion."""
    still = Maps(torch.eye(3)[None, :2].expand(6, -1, -1))
    assert map_errors(SCENE, clip[1], still, 0)[1].mean() > 1.5


def test_a_chain_of_splines_follows_what_bends():
    scene = replace(SCENE, motion=replace(SCENE.motion, bend=0.04))
    _, alpha = scene.render()
    flow, weight = scene.flow(alpha), (alpha > 0.9).float()
    flat, bent = (chained(flow, weight, cells, 1e-5) for cells in (None, (8, 12)))
    errors = [map_errors(scene, alpha, maps, 0)[1].mean() for maps in (flat, bent)]
    assert errors[1] < 0.1 and errors[0] > 3 * errors[1]


def test_flow_that_does_not_agree_does_not_count(clip):
    """Most of the picture goes elsewhere, but not both ways."""
    _, alpha, flow, _ = clip
    wrong = torch.arange(80) < 52
    broken = [torch.where(wrong, torch.tensor(3.0), field) for field in (flow.forward, flow.backward)]
    agrees = [agreed & ~wrong for agreed in (flow.forward_agrees, flow.backward_agrees)]
    maps = chained(Flow(*broken, *agrees), (alpha < 0.05).float(), None, 1e-3)
    assert map_errors(SCENE, alpha, maps, 1)[1].mean() < 0.3


def test_layers_do_not_mix_in_their_pictures():
    """Every frame gives to a layer by the square of how much of it is seen there."""
    alpha = torch.full((1, 1, 48, 80), 0.05)
    alpha[..., 30:50] = 0.95
    frames = torch.where(
        alpha > 0.5, torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), torch.tensor([0, 0, 1.0]).view(1, 3, 1, 1)
    )
    still, box = Maps(torch.eye(3)[None, :2]), Box(-1.0, -0.6, 1.0, 0.6, 5, 4)  # coarse texels, so that they could mix
    (front, behind), _ = splatted(frames, (still, still), (alpha,), (box, box))
    assert front[0].max() > 0.99 > 0.05 > behind[0, :, [0, 3]].max()
    shared = front[0, 0, 1]  # a quarter red and three quarters blue in its reach, by 0.95^2 and 0.05^2
    assert shared > 0.95


@pytest.mark.parametrize(("round_", "tight"), [(False, False), (True, True)])
def test_without_motion_the_form_of_a_mask_decides(round_, tight):
    frames = SCENE.render()[0][:1].expand(2, -1, -1, -1)
    y, x = torch.meshgrid(torch.arange(48) - 24, torch.arange(80) - 40, indexing="ij")
    mask = (x**2 + y**2 < 144) if round_ else (x.abs() < 12) & (y.abs() < 12)
    begun = start(frames, (mask.float().expand(2, 1, -1, -1),), flow_of(frames), OPTIONS)
    assert begun.tight is tight


def test_the_fit_refines(clip, begun, fitted):
    frames, alpha, flow, masks = clip
    first = Fit(frames, masks, flow, begun, OPTIONS).atlas()
    assert psnr(rendered(fitted), frames) > max(40, psnr(rendered(first), frames) + 3)
    assert alpha_iou(torch.cat([fitted.alpha([t], 0) for t in range(6)]), alpha) > 0.88
    for k in (0, 1):
        assert map_errors(SCENE, alpha, fitted.layers[k].maps, k)[1].mean() < 0.15


def test_same_seed_same_atlas(clip, begun):
    frames, _, flow, masks = clip
    one, again, other = (Fit(frames, masks, flow, begun, replace(QUICK, seed=seed)).run() for seed in (0, 0, 1))
    assert torch.equal(again.layers[0].texture, one.layers[0].texture)
    assert torch.equal(again.layers[1].maps.offsets, one.layers[1].maps.offsets)
    assert not torch.equal(other.layers[0].texture, one.layers[0].texture)


def test_what_is_given_stays_as_it_is(clip, begun, fitted):
    """A start may be fitted twice, and an atlas taken before the end does not change with what comes after."""
    frames, _, flow, masks = clip
    before = begun.maps[0].affine.clone(), begun.textures[1].clone()
    going = Fit(frames, masks, flow, begun, OPTIONS)
    early = going.atlas()
    kept = early.layers[0].maps.affine.clone(), early.layers[0].texture.clone()
    going.step()
    assert torch.equal(before[0], begun.maps[0].affine) and torch.equal(before[1], begun.textures[1])
    assert torch.equal(kept[0], early.layers[0].maps.affine) and torch.equal(kept[1], early.layers[0].texture)


def test_frames_of_inference_mode_are_taken(clip):
    """ComfyUI runs nodes in it, and autograd refuses its tensors."""
    with torch.inference_mode():
        frames, masks = clip[0].clone(), (clip[3][0].clone(),)
    with torch.inference_mode(False), torch.enable_grad():
        assert fit((frames, None, clip[2], masks), replace(OPTIONS, steps=1)).step() > 0


@pytest.mark.parametrize(("motion", "offsets"), [("affine", None), ("rigid", (8, 10)), ("non-rigid", (11, 15))])
def test_what_maps_may_do(clip, motion, offsets):
    """On two frames, which is the least there is."""
    short = clip[0][:2], clip[1][:2], flow_of(clip[0][:2]), (clip[3][0][:2],)
    maps = fit(short, replace(QUICK, motion=motion)).run().layers[0].maps
    assert len(maps) == 2
    assert (maps.offsets is None and offsets is None) or tuple(maps.offsets.shape[2:]) == offsets


def test_without_a_mask_there_is_one_layer(clip):
    atlas = fit(clip, QUICK, ()).run()
    assert (len(atlas.layers), atlas.alphas) == (1, ())
    assert torch.equal(atlas.alpha([0, 2], 0), torch.ones(2, 1, 48, 80))
    background = clip[1] < 0.01
    assert psnr(*(frames * background for frames in (rendered(atlas), clip[0]))) > 20


@pytest.mark.parametrize(("masks", "tight"), [("auto", True), ("rough", False), ("tight", True)])
def test_masks_that_are_close_are_trusted(clip, masks, tight):
    true = ((clip[1] > 0.5).float(),)
    going = fit(clip, replace(OPTIONS, masks=masks), true)
    assert going.begun.tight is tight
    if tight:
        going.step()
        alpha = going.atlas().alphas[0]
        assert (alpha[torch.nn.functional.max_pool2d(clip[1], 9, 1, 4) < 0.5] == 0).all()


@pytest.mark.parametrize(
    ("mask", "box"),
    [
        (torch.ones(2, 1, 6, 8), True),
        (torch.nn.functional.pad(torch.ones(2, 1, 3, 4), (1, 2, 2, 1)), True),
        (torch.ones(1, 1, 6, 8).triu(), False),
        (torch.stack([torch.zeros(1, 6, 8), torch.ones(1, 6, 8)]), True),  # not there in one frame
        (torch.stack([torch.ones(1, 6, 8), torch.ones(1, 6, 8).triu(), torch.ones(1, 6, 8).tril()]), False),
        (torch.zeros(2, 1, 6, 8), False),
    ],
)
def test_boxes_are_known(mask, box):
    """Where nothing moves or has texture, a box would else be taken for an outline."""
    assert is_box(mask) is box


def test_two_foregrounds_lie_in_order(clip):
    frames, alpha, *_ = clip
    left = torch.arange(80) < 35
    masks = tuple(((alpha > 0.5) & side).float() for side in (left, ~left))
    atlas = fit(clip, replace(QUICK, masks="tight"), masks).run()
    seen = atlas.seen([3])
    assert (len(atlas.layers), len(seen)) == (3, 3)
    assert torch.allclose(sum(seen), torch.ones(1, 1, 48, 80), atol=1e-6)
    assert torch.allclose(seen[1], (1 - atlas.alpha([3], 0)) * atlas.alpha([3], 1))
    assert psnr(rendered(atlas), frames) > 30


def test_light_that_changes_needs_gains():
    scene = replace(SCENE, motion=replace(SCENE.motion, light=0.3))
    frames, alpha = scene.render()
    clip = frames, alpha, scene.flow(alpha), (boxes(alpha, 3),)
    plain, lit = (fit(clip, replace(QUICK, lighting=lighting)).run() for lighting in (False, True))
    assert plain.gains is None and lit.gains.shape[:2] == (6, 3)
    assert psnr(rendered(lit), frames) > max(33, psnr(rendered(plain), frames) + 4)
    points = pixels(scene.size, torch.zeros(()))
    for t in (0, 5):
        true = scene.light(t, points) / scene.light(3, points)
        assert (lit.light([t])[0] / true - 1).abs().mean() < 0.03


def test_gates_tell_a_good_atlas(clip, fitted):
    found = gates.gates(fitted, clip[0], clip[3], clip[2])
    assert [gate.line() for gate in found if not gate.fine] == []
    assert gates.far_error(fitted, clip[0], 1).mean() < 0.2


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("still", "background's map between neighbours"),
        ("slipping", "background's map from the middle to far frames, mean"),
        ("stretched", "foreground's stretch"),
        ("grey", "reconstruction"),
        ("empty", "foreground's alpha on its mask"),
    ],
)
def test_gates_tell_a_bad_one(clip, fitted, broken, told):
    background, foreground = fitted.layers[1], fitted.layers[0]
    if broken == "still":
        maps = Maps(background.maps.affine[3:4].expand(6, -1, -1))
        atlas = fitted.with_layer(1, replace(background, maps=maps))
    elif broken == "slipping":  # less than a pixel a frame, so neighbours do not tell
        slip = torch.zeros(6, 2, 3)
        slip[:, 0, 2] = 0.9 * (torch.arange(6) - 3) / 40
        atlas = fitted.with_layer(
            1, replace(background, maps=replace(background.maps, affine=background.maps.affine + slip))
        )
    elif broken == "stretched":
        wide = foreground.maps.affine * torch.tensor([[8.0], [1.0]])
        atlas = fitted.with_layer(0, replace(foreground, maps=replace(foreground.maps, affine=wide)))
    elif broken == "grey":
        atlas = fitted.with_layer(1, replace(background, texture=torch.full_like(background.texture, 0.9)))
    else:
        atlas = replace(fitted, alphas=(torch.zeros_like(fitted.alphas[0]),))
    found = [gates.reconstruction(atlas, clip[0]), gates.of_alpha(atlas, clip[3][0], 0)]
    if broken in ("still", "slipping", "stretched"):
        found += gates.of_maps(atlas, clip[0], clip[2], int(broken != "stretched"))
    bad = [gate.name for gate in found if not gate.fine]
    assert any(told in name for name in bad), bad


def test_bent_maps_are_inverted(clip, fitted):
    """The affine inverse alone would miss."""
    maps = fitted.layers[1].maps
    offsets = maps.offsets + 0.1 * torch.rand(maps.offsets.shape, generator=torch.Generator().manual_seed(0))
    bent = fitted.with_layer(1, replace(fitted.layers[1], maps=replace(maps, offsets=offsets)))
    points = 0.5 * pixels((48, 80), torch.zeros(()))[None]
    targets = bent.layers[1].maps[[2]].at(points.flatten(1, 2), (48, 80)).view_as(points)
    assert (gates.inverted(bent, 1, 2, targets) - points).abs().max() < 1e-4


def test_a_far_error_is_in_pixels(clip, fitted):
    background = fitted.layers[1]
    affine = background.maps.affine.clone()
    affine[[0, 1, 2, 4, 5], :, 2] += torch.tensor([2.0, 0.0]) / 40  # all but the middle: two pixels to the right
    shifted = fitted.with_layer(1, replace(background, maps=replace(background.maps, affine=affine)))
    assert gates.far_error(shifted, clip[0], 1).median().item() == pytest.approx(2, abs=0.2)


def film(n=3, h=40, w=40):
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(0))


def nan_at(t):
    frames = film()
    frames[t, 0, 0, 0] = torch.nan
    return frames


def half_mask(n, h=40, w=40, empty=()):
    mask = torch.zeros(n, h, w)
    mask[:, : h // 2] = 1
    mask[list(empty)] = 0
    return mask


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: checked_frames(film(1), 70), "1 frame: an atlas is what frames have in common"),
        (lambda: checked_frames(film(9), 8), "9 frames; the limit is 8.*max_frames"),
        (lambda: checked_frames(film(3, 16), 70), "40x16"),
        (lambda: checked_frames(nan_at(1), 70), "not finite in frame 1, counted from 0"),
        (lambda: checked_mask(half_mask(2), film()), "Got 2 masks in mask for 3 frames"),
        (lambda: checked_mask(half_mask(3, 20, 40), film()), "mask is 40x20, the images are 40x40"),
        (lambda: checked_mask(half_mask(3, empty=(0, 1)), film()), "empty in 2 of 3: frames 0-1, counted from 0"),
        (lambda: checked_mask(torch.ones(1, 40, 40), film(), "mask_2"), "mask_2 covers 100%"),
        (lambda: FitOptions(motion="wobbly"), "motion is 'wobbly'.*affine, rigid, non-rigid"),
        (lambda: FitOptions(masks="soft"), "masks is 'soft'"),
    ],
)
def test_bad_input_is_refused(attempt, message):
    with pytest.raises(EI2Error, match=message):
        attempt()


@pytest.mark.parametrize(("n", "h", "w"), [(1, 40, 40), (3, 40, 40), (3, 20, 20), (1, 80, 80)])
def test_masks_that_fit_are_taken(n, h, w):
    assert tuple(checked_mask(half_mask(n, h, w), film()).shape) == (3, 1, 40, 40)


@pytest.mark.parametrize(
    ("frames", "words"), [([2], "frame 2"), ([2, 6, 7, 8], "frames 2, 6-8"), ([0, 1], "frames 0-1")]
)
def test_frames_are_listed_as_the_inputs_count(frames, words):
    assert listed(frames) == f"{words}, counted from 0"


def test_a_clip_is_known_by_its_pixels():
    frames = film()
    assert fingerprint(frames) == fingerprint((frames * 255).round() / 255)
    changed = frames.clone()
    changed[2, 1, 5, 5] = 1 - changed[2, 1, 5, 5].round()
    assert len({fingerprint(f) for f in (frames, changed, frames[:2], frames.flip(0))}) == 4
