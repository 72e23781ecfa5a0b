"""The demonstration's scenes: captions, rendering against slow and plain geometry, motion; and its small networks."""

from dataclasses import replace
from itertools import pairwise
from math import cos, hypot, pi, radians, sin
from random import Random

import pytest
import torch
from safetensors.torch import load_file, save_file

from ei2_modules.demo import autoencoder, clips, scenes, text_encoder, vocabulary, weights
from ei2_modules.demo.scenes import Scene, Thing
from ei2_modules.errors import EI2Error


def random_scenes(count, seed=3):
    random = Random(seed)
    return [scenes.random_scene(random) for _ in range(count)]


def one(background="white", style="plain", bar=None, **thing):
    return Scene((Thing(**({"shape": "square", "colour": "red"} | thing)),), background, style, bar=bar)


def seen(scene):
    """(picture, mask) of one scene."""
    pictures, masks = scenes.render([scene])
    return pictures[0], masks[0]


# Captions


def test_captions_are_made_of_known_words_and_come_back():
    for _, caption in random_scenes(500):
        tokens = vocabulary.tokenize(caption)
        assert tokens[0] == vocabulary.START and len(tokens) <= vocabulary.LENGTH
        assert " ".join(vocabulary.WORDS[t] for t in tokens[1:]) == caption


def test_every_word_but_the_padding_can_be_said():
    said = {word for _, caption in random_scenes(4000) for word in caption.split()}
    said |= set(clips.clip_caption(clips.moving(one(), "slide")).split())
    assert said == set(vocabulary.WORDS[vocabulary.START + 1 :])


CAPTIONS = [
    (one("blue"), "a red square on a blue background"),
    (one("orange", colour="orange"), "an orange square on an orange background"),
    (one(style="night", texture="striped"), "a striped red square on a white background at night"),
    (one(style="outline", bar=0.5), "a red square behind a bar on a white background as an outline"),
    (Scene((Thing("star", "red"), Thing("cross", "orange")), "blue"),
     "a red star and an orange cross on a blue background"),
]  # fmt: skip


@pytest.mark.parametrize("scene, caption", CAPTIONS)
def test_captions(scene, caption):
    assert scenes.caption(scene) == caption


SWITCHES = [
    ({"size": True}, {"radius": 0.14}, "a small red square on a white background"),
    ({"size": True}, {"radius": 0.3}, "a big red square on a white background"),
    ({"size": True}, {"radius": 0.2}, "a red square on a white background"),
    ({"place": True}, {"x": 0.2}, "a red square on the left on a white background"),
    ({"place": True}, {"x": 0.8}, "a red square on the right on a white background"),
    ({"place": True}, {"y": 0.2}, "a red square at the top on a white background"),
    ({"place": True}, {"y": 0.8}, "a red square at the bottom on a white background"),
    ({"place": True}, {}, "a red square in the middle on a white background"),
    ({"place": True}, {"x": 0.2, "y": 0.8}, "a red square on a white background"),
    ({"moving": True}, {}, "a red square moving on a white background"),
]


@pytest.mark.parametrize("switch, thing, caption", SWITCHES)
def test_what_a_caption_may_add(switch, thing, caption):
    assert scenes.caption(one(**thing), **switch) == caption


@pytest.mark.parametrize("text", ["a Red circle, on a blue background.", "  a red circle\non a blue background!"])
def test_case_and_punctuation_do_not_matter(text):
    assert vocabulary.tokenize(text) == vocabulary.tokenize("a red circle on a blue background")


def test_an_empty_caption_is_the_start_alone():
    assert vocabulary.tokenize("") == [vocabulary.START]


def test_a_batch_is_padded():
    rows = vocabulary.batch(["", "red", "a red star"])
    assert rows.shape == (3, vocabulary.LENGTH)
    assert (rows != vocabulary.PAD).sum(dim=1).tolist() == [1, 2, 4]


@pytest.mark.parametrize("word", ["rabbit", "<pad>", "<start>", "plain", "red-circle", "(red"])
def test_an_unknown_word_is_refused_with_the_words_that_are_known(word):
    with pytest.raises(EI2Error) as error:
        vocabulary.tokenize(f"a red {word} on a blue background")
    message = str(error.value)
    assert repr(word) in message and "Stable Diffusion 1.x" in message
    assert all(known in message for known in vocabulary.WORDS[vocabulary.START + 1 :])


def test_a_caption_that_is_too_long_is_refused():
    most = vocabulary.LENGTH - 1
    assert len(vocabulary.tokenize("red " * most)) == vocabulary.LENGTH
    with pytest.raises(EI2Error, match=f"{most + 1} words.*reads {most}"):
        vocabulary.tokenize("red " * (most + 1))


# Rendering


def inside(shape, u, v):
    """Whether a point lies in a shape of radius 1; v points down."""
    polygons = {
        "square": [(0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8), (0.8, -0.8)],
        "triangle": [(sin(radians(a)), -cos(radians(a))) for a in (0, 120, 240)],
        "star": [(r * sin(radians(36 * i)), -r * cos(radians(36 * i))) for i, r in enumerate([1, 0.42] * 5)],
    }
    if shape == "circle":
        return hypot(u, v) < 0.9
    if shape == "cross":
        return (abs(u) < 0.95 and abs(v) < 0.34) or (abs(u) < 0.34 and abs(v) < 0.95)
    corners, crossings = polygons[shape], False
    for (ax, ay), (bx, by) in pairwise([*corners, corners[0]]):
        if (ay > v) != (by > v) and u < ax + (v - ay) * (bx - ax) / (by - ay):
            crossings = not crossings
    return crossings


def slow_mask(thing, size=scenes.SIZE, fine=4):
    """Every pixel asked at fine x fine points, one after the other."""
    mask = torch.zeros(size, size)
    for row in range(size):
        for column in range(size):
            for i in range(fine * fine):
                right = (column + (i % fine + 0.5) / fine) / size - thing.x
                down = (row + (i // fine + 0.5) / fine) / size - thing.y
                u = (right * cos(thing.angle) + down * sin(thing.angle)) / thing.radius
                v = (down * cos(thing.angle) - right * sin(thing.angle)) / thing.radius
                mask[row, column] += inside(thing.shape, u, v) / fine**2
    return mask


@pytest.mark.parametrize("angle", [0.0, 0.7])
@pytest.mark.parametrize("shape", vocabulary.SHAPES)
def test_masks_are_those_of_plain_geometry(shape, angle):
    """Recorded over all ten: area within 0.5 %, overlap above 0.986, mean difference below 0.0026."""
    thing = Thing(shape, "red", x=0.47, y=0.55, radius=0.3, angle=angle)
    found, expected = seen(Scene((thing,), "white"))[1], slow_mask(thing)
    assert found.sum().item() == pytest.approx(expected.sum().item(), rel=0.01)
    assert torch.minimum(found, expected).sum() / torch.maximum(found, expected).sum() > 0.98
    assert (found - expected).abs().mean() < 0.003


@pytest.mark.parametrize("case", range(60))
def test_the_mask_is_where_another_colour_is_seen(case):
    """The background is one of a colour that leaves room below and above, so that nothing is clipped."""
    scene = replace(random_scenes(60, seed=8)[case][0], background="green")
    scene = scene.change(texture="plain", colour="yellow")
    (before, mask), (after, other) = seen(scene), seen(scene.change(colour="black"))
    changed = (before - after).abs().amax(dim=-1)
    assert torch.equal(mask, other)
    assert torch.equal(changed > 1e-5, mask > 1e-4)


HIDERS = {
    "a second thing": lambda scene: Scene((*scene.things, Thing("circle", "green", radius=0.1)), scene.background),
    "a bar": lambda scene: one(scene.background, bar=0.5),
}


@pytest.mark.parametrize("hide", HIDERS.values(), ids=HIDERS)
def test_what_is_in_front_hides(hide):
    scene = one()
    (_, mask), (picture, hidden) = seen(scene), seen(hide(scene))
    middle = scenes.SIZE // 2
    assert mask[middle, middle] == 1 and hidden[middle, middle] == 0
    assert (hidden <= mask).all() and 0 < hidden.sum() < mask.sum()
    assert not torch.allclose(picture[middle, middle], torch.tensor(vocabulary.COLOURS["red"]), atol=0.1)


def test_scenes_of_one_batch_do_not_meet():
    """Each picture is what it is alone, whatever is drawn beside it."""
    batch = [scene for scene, _ in random_scenes(40)]
    pictures, masks = scenes.render(batch)
    assert pictures.shape == (40, 64, 64, 3) and masks.shape == (40, 64, 64)
    assert pictures.min() >= 0 and pictures.max() <= 1 and masks.min() >= 0 and masks.max() <= 1
    for i, scene in enumerate(batch):
        picture, mask = seen(scene)
        torch.testing.assert_close(pictures[i], picture, rtol=0, atol=1e-5)
        torch.testing.assert_close(masks[i], mask, rtol=0, atol=1e-5)


def test_styles_change_colours_and_outlines_only_the_inside():
    plain = seen(one())[0]
    night, pastel = (seen(one(style=style))[0] for style in ("night", "pastel"))
    assert night.mean() < 0.5 * plain.mean() and pastel.min() > plain.min()
    picture, mask = seen(one(style="outline"))
    middle = scenes.SIZE // 2
    assert mask[middle, middle] == 0 and torch.equal(picture[middle, middle], plain[0, 0])
    assert mask.max() == 1


def test_textures_show_a_second_colour():
    amounts = {}
    for texture in vocabulary.TEXTURES:
        picture, mask = seen(one("blue", radius=0.32, texture=texture))
        first, second = (torch.tensor(vocabulary.COLOURS[colour])[1] for colour in ("red", "white"))
        amounts[texture] = ((picture[..., 1][mask > 0.99] - first) / (second - first)).mean().item()
    assert amounts["plain"] == pytest.approx(0, abs=1e-6)
    assert amounts["striped"] == pytest.approx(scenes.STRIPE_SHARE, abs=0.03)
    assert amounts["dotted"] == pytest.approx(pi * scenes.DOT_RADIUS**2 / scenes.DOT**2, abs=0.03)


# What is trained on


def test_held_out_combinations_are_never_trained_on():
    found, captions = scenes.scenes_to_train_on(5, 1000)
    assert len(found) == len(captions) == 1000
    assert not any(scenes.held_out(scene) for scene in found)
    single = [scene for scene, _ in random_scenes(4000) if len(scene.things) == 1]
    assert sum(map(scenes.held_out, single)) / len(single) == pytest.approx(1 / scenes.HELD_OUT, abs=0.02)


def test_one_combination_in_ten_is_held_out_and_only_they_decide():
    combinations = [
        one(background, shape=shape, colour=colour)
        for shape in vocabulary.SHAPES
        for colour in vocabulary.COLOURS
        for background in vocabulary.COLOURS
        if colour != background
    ]
    kept = [scenes.held_out(scene) for scene in combinations]
    assert sum(kept) / len(kept) == pytest.approx(1 / scenes.HELD_OUT, abs=0.02)
    moved = [scene.change(x=0.3, radius=0.2, texture="dotted") for scene in combinations]
    assert [scenes.held_out(scene) for scene in moved] == kept
    found = [scene for scene, is_kept in zip(combinations, kept, strict=True) if is_kept]
    assert (
        {scene.things[0].colour for scene in found} == {scene.background for scene in found} == set(vocabulary.COLOURS)
    )


def test_a_held_out_second_thing_counts():
    held = next(s for s, _ in random_scenes(500) if len(s.things) == 1 and scenes.held_out(s))
    free = next(s for s, _ in random_scenes(500) if s.background == held.background and not scenes.held_out(s))
    assert scenes.held_out(Scene((free.things[0], held.things[0]), held.background))


def test_same_seed_same_scenes():
    assert scenes.scenes_to_train_on(7, 50) == scenes.scenes_to_train_on(7, 50)
    assert scenes.scenes_to_train_on(7, 50) != scenes.scenes_to_train_on(8, 50)


def test_everything_in_a_scene_has_its_own_colour_and_the_first_thing_is_seen():
    for scene, _ in random_scenes(200):
        colours = [scene.background, *(thing.colour for thing in scene.things)]
        assert len(set(colours)) == len(colours)
        assert seen(scene)[1].sum() > 40


# Motion


def centroid(mask):
    y, x = torch.meshgrid(*[(torch.arange(len(mask)) + 0.5) / len(mask)] * 2, indexing="ij")
    return (mask * x).sum() / mask.sum(), (mask * y).sum() / mask.sum()


def masks_of(motion, scene=None, **options):
    clip = clips.moving(scene or one("blue", shape="circle"), motion, **options)
    return clip, scenes.render(clip)[1]


@pytest.mark.parametrize("motion", ["slide", "arc", "grow", "moving light"])
def test_the_mask_goes_where_the_scene_says(motion):
    clip, masks = masks_of(motion, frames=12)
    for scene, mask in zip(clip, masks, strict=True):
        x, y = centroid(mask)
        assert x == pytest.approx(scene.things[0].x, abs=1e-3) and y == pytest.approx(scene.things[0].y, abs=1e-3)


def rising(values):
    return all(a < b for a, b in pairwise(values))


WHAT_CHANGES = {
    "slide": lambda clip, areas: rising([s.things[0].x for s in clip]) and rising([s.things[0].y for s in clip]),
    "arc": lambda clip, areas: rising([s.things[0].x for s in clip]) and clip[4].things[0].y < clip[0].things[0].y,
    "grow": lambda clip, areas: rising(areas) and areas[-1] > 4 * areas[0],
    "turn": lambda clip, areas: rising([s.things[0].angle for s in clip]) and max(areas) < 1.01 * min(areas),
    "two objects": lambda clip, areas: rising([s.things[0].x for s in clip]) and rising([-s.things[1].x for s in clip]),
    "behind a bar": lambda clip, areas: min(areas[3:5]) < 0.8 * areas[0] and rising([s.things[0].x for s in clip]),
    "moving light": lambda clip, areas: len({s.light for s in clip}) == 8 and rising([s.things[0].x for s in clip]),
}


@pytest.mark.parametrize("motion", clips.MOTIONS)
def test_motions(motion):
    clip, masks = masks_of(motion)
    assert len(clip) == clips.FRAMES
    assert WHAT_CHANGES[motion](clip, masks.sum(dim=(1, 2)).tolist())
    assert len({clips.clip_caption([scene]) for scene in clip}) == 1, "one caption fits all frames"
    vocabulary.tokenize(clips.clip_caption(clip))


@pytest.mark.parametrize("motion", clips.MOTIONS)
@pytest.mark.parametrize("shape", vocabulary.SHAPES)
def test_what_moves_stays_in_the_picture(motion, shape):
    _, masks = masks_of(motion, one("blue", shape=shape))
    edges = torch.cat([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]])
    assert edges.max() < 0.5, "the outline lies within the picture"


def test_backwards_is_the_same_clip_from_its_end():
    there, back = (clips.moving(one(), "slide", backwards=b) for b in (False, True))
    for a, b in zip(there, reversed(back), strict=True):
        assert a.things[0].x == pytest.approx(b.things[0].x) and a.things[0].y == pytest.approx(b.things[0].y)


def test_one_frame_is_where_the_motion_starts():
    assert clips.moving(one(), "slide", 1) == clips.moving(one(), "slide", 5)[:1]


def test_a_second_thing_that_is_there_is_kept():
    two = Scene((Thing("circle", "red"), Thing("star", "green")), "blue")
    assert {s.things[1].shape for s in clips.moving(two, "two objects")} == {"star"}
    assert {s.things[1].colour for s in clips.moving(one("blue"), "two objects")} == {"green"}


@pytest.mark.parametrize(
    "motion, frames, message",
    [("fly", 8, "'fly'.*slide, arc, grow"), ("slide", 0, "0 frames"), ("slide", -1, "-1 frames")],
)
def test_wrong_motions(motion, frames, message):
    with pytest.raises(EI2Error, match=message):
        clips.moving(one(), motion, frames)


# Networks


def test_text_encoder():
    encoder = text_encoder.TextEncoder().eval()
    tokens = vocabulary.batch(["", "a red circle", "a blue circle"])
    with torch.no_grad():
        context = encoder(tokens)
        alone = encoder(tokens[1:2])
    assert context.shape == (3, vocabulary.LENGTH, text_encoder.WIDTH)
    torch.testing.assert_close(context[1:2], alone, rtol=0, atol=1e-6)
    assert not torch.allclose(context[1], context[2])


def test_autoencoder():
    generator = torch.Generator().manual_seed(0)
    model = autoencoder.Autoencoder(width=32, fine=16)
    pictures = torch.rand(2, 3, 32, 64, generator=generator) * 2 - 1
    latents = model.encode(pictures)
    assert latents.shape == (2, autoencoder.CHANNELS, 8, 16)
    torch.testing.assert_close(latents.std(), torch.tensor(1.0), rtol=0, atol=0.05)
    assert model.decode(latents).shape == pictures.shape
    loss = autoencoder.loss(model, pictures, generator)
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is not None for p in model.parameters())


# The file


def parts():
    made = {part: {"x.weight": torch.randn(3, 4), "count": torch.tensor(7)} for part in weights.PARTS}
    return weights.DemoWeights(**made, training={"seed": 1})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    weights.save(path, parts())
    return path


def test_the_file_comes_back_in_single_precision(tmp_path):
    path, saved = tmp_path / "model.safetensors", parts()
    weights.save(path, saved)
    loaded = weights.load(path)
    assert loaded.training == {"seed": 1}
    for part in weights.PARTS:
        found, expected = getattr(loaded, part), getattr(saved, part)
        assert torch.equal(found["x.weight"], expected["x.weight"].half().float()) and found["count"] == 7
    assert {t.dtype for t in load_file(path).values()} == {torch.float16, torch.int64}


def test_the_controlnet_has_a_file_of_its_own(tmp_path):
    path, saved = tmp_path / "controlnet.safetensors", {"x.weight": torch.randn(3, 4)}
    weights.save_controlnet(path, saved, {"seed": 1})
    assert torch.equal(weights.load_controlnet(path)["x.weight"], saved["x.weight"].half().float())
    with pytest.raises(EI2Error, match=r"holds \['controlnet'\], not .*Install the pack again"):
        weights.load(path)


def rewrite(path, tensors=lambda t: t, metadata='{"seed": 1}'):
    save_file(tensors(load_file(path)), path, {"training": metadata})


def without(tensors, part):
    return {name: t for name, t in tensors.items() if not name.startswith(f"{part}.")}


DAMAGE = {
    "missing": (lambda p: p.unlink(), "cannot be read"),
    "empty": (lambda p: p.write_bytes(b""), "cannot be read"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "cannot be read"),
    "a text file": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n" * 3), "cannot be read"),
    "a foreign safetensors file": (lambda p: save_file({"lora_up": torch.ones(2)}, p), "cannot be read"),
    "no note of the training": (lambda p: save_file(load_file(p), p, {"a": "b"}), "cannot be read"),
    "a note that is no JSON": (lambda p: rewrite(p, metadata="{"), "cannot be read"),
    "a part lacks": (lambda p: rewrite(p, lambda t: without(t, "preview")), r"holds \['autoencoder', 'text"),
    "a part too many": (lambda p: rewrite(p, lambda t: t | {"more.x": torch.ones(1)}), "'more'.*not "),
}


@pytest.mark.parametrize("case", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_refused_with_the_fix(file, case):
    damage, message = case
    damage(file)
    with pytest.raises(EI2Error, match=f"{message}.*Install the pack again"):
        weights.load(file)
