"""Save, load, inspect and replace on the real host."""

import pytest
import torch

from tools.server.in_process import pack

from . import atlases
from .mini import run

EI2Error = pack("ei2_modules.errors").EI2Error


@pytest.fixture(scope="module")
def fitted():
    """(IMAGE, atlas, foreground, alpha)."""
    clip = atlases.fitted()
    return clip.images, clip.atlas, clip.foreground, clip.seen


def painted(foreground, atlas):
    """The picture with a red patch in the middle of the object."""
    rows, columns = atlas.layers[0].observed.nonzero(as_tuple=True)
    y, x = int(rows.float().mean()), int(columns.float().mean())
    picture = foreground.clone()
    picture[:, y - 2 : y + 3, x - 2 : x + 3] = torch.tensor([1.0, 0.0, 0.0])
    return picture


def put(fitted, picture, **change):
    images, atlas, *_ = fitted
    given = {"atlas": atlas, "picture": picture, "layer": "foreground", "images": images}
    return run("edit_atlas.ReplaceAtlas", **(given | change))


def test_paint_follows_the_object(fitted):
    images, atlas, foreground, _ = fitted
    picture = painted(foreground, atlas)
    edited, clip = put(fitted, picture)
    changed = (clip != images).any(-1)
    assert changed.sum((1, 2)).min() > 4 and changed.sum((1, 2)).max() < 60
    where = [frame.nonzero().float().mean(0).flip(0) + 0.5 for frame in changed]
    half = torch.tensor([32.0, 20.0])
    middle = atlases.SCENE.to_layer(2, (where[2] - half) / 32, 0)
    for t in range(4):
        belongs = atlases.SCENE.to_picture(t, middle, 0).float() * 32 + half
        assert (where[t] - belongs).norm() < 0.8
    assert edited.layers[0].edited is not None and atlas.layers[0].edited is None
    assert torch.equal(put(fitted, foreground)[1], images)  # nothing is painted, nothing changes


def test_a_mask_says_what_changes(fitted):
    images, _, foreground, _ = fitted
    mask = torch.zeros(1, *foreground.shape[1:3])
    assert torch.equal(put(fitted, 1 - foreground, mask=mask)[1], images)
    assert not torch.equal(put(fitted, 1 - foreground, mask=1 - mask)[1], images)


def test_a_second_edit_keeps_the_first(fitted):
    images, atlas, foreground, _ = fitted
    picture = painted(foreground, atlas)
    once, clip = put(fitted, picture)
    background = atlas.layers[1].texture.movedim(0, -1)[None]
    _, both = put(fitted, torch.zeros_like(background), atlas=once, layer="background")
    red = ((clip - images).abs().amax(-1) > 0.2) & (fitted[3] > 0.98)
    assert torch.allclose(both[red], clip[red], atol=0.05) and both[fitted[3] < 0.02].max() < 0.1


def test_saved_and_loaded_are_the_same(fitted, folders):
    images, atlas, *_ = fitted
    for _ in range(2):
        run("atlas_files.SaveAtlas", atlas=atlas, file_name="my clip")
    folder = pack("nodes.host.atlas.folder")
    assert folder.list_files() == ["my clip_00001_.safetensors", "my clip_00002_.safetensors"]
    (again,) = run("atlas_files.LoadAtlas", file_name="my clip_00002_.safetensors", images=images)
    assert torch.equal(again.render([0, 3]), atlas.render([0, 3]))
    assert torch.equal(put(fitted, fitted[2], atlas=again)[1], images)


def test_a_checkerboard_is_drawn(fitted):
    _, atlas, *_ = fitted
    board, foreground, background, report = run("edit_atlas.InspectAtlas", atlas=atlas, squares=8)
    assert board.shape == (4, 40, 64, 3) and board.min() >= 0 and board.max() <= 1
    alpha = fitted[3]
    redness = board[..., 0] - board[..., 2]
    assert redness[alpha > 0.9].mean() > 0.1 > -0.1 > redness[alpha < 0.1].mean()
    assert foreground.shape[1:] == atlas.layers[0].observed.shape and set(background.unique().tolist()) == {0.0, 1.0}
    assert "4 frames of 64x40, 2 layers" in report and "background: " in report


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda f: put(f, f[2], images=f[0][:3]), "fitted to another clip .4 frames of 64x40.; got 3 frames"),
        (lambda f: put(f, f[2], images=f[0].flip(1)), "differ from it in their pixels"),
        (lambda f: put(f, f[2].repeat(2, 1, 1, 1)), "got 2 pictures"),
        (lambda f: put(f, f[2], layer="foreground 2"), "no layer 'foreground 2': it has foreground, background"),
        (lambda f: run("atlas_files.SaveAtlas", atlas=f[1], file_name="a/b"), "cannot be a file name"),
        (lambda f: run("atlas_files.LoadAtlas", file_name="gone.safetensors"), "is not in output/ei2_atlas"),
        (lambda f: run("atlas_files.LoadAtlas", file_name="../a.safetensors"), "is not in output/ei2_atlas"),
    ],
)
def test_bad_input_is_refused(fitted, folders, attempt, message):
    with pytest.raises(EI2Error, match=message):
        attempt(fitted)


def test_another_clips_atlas_is_not_loaded(fitted, folders):
    run("atlas_files.SaveAtlas", atlas=fitted[1], file_name="a")
    with pytest.raises(EI2Error, match="fitted to another clip"):
        run("atlas_files.LoadAtlas", file_name="a_00001_.safetensors", images=fitted[0].flip(0))
