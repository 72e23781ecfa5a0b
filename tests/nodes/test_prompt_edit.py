"""Prompt Edit and Attention Maps, with the host's own tokenizers and the shipped model's."""

import comfy.sd1_clip
import comfy.sdxl_clip
import pytest
import torch

from .mini import pack, run

demo = pack("nodes.host.demo_model")
texts = pack("nodes.host.control.texts")


class Clip:
    """A CLIP as far as Prompt Edit asks: a tokenizer of the host, and embeddings of the right length."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def tokenize(self, text, return_word_ids=False):
        return self.tokenizer.tokenize_with_weights(text, return_word_ids)

    def encode_from_tokens_scheduled(self, tokens):
        chunks = next(iter(tokens.values()))
        return [[torch.randn(1, sum(map(len, chunks)), 8), {}]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeddings")
    from safetensors.torch import save_file

    save_file({"emb_params": torch.randn(2, 768)}, folder / "look.safetensors")
    sd1 = comfy.sd1_clip.SD1Tokenizer(embedding_directory=[str(folder)])
    return {
        "sd1": Clip(sd1),
        "sdxl": Clip(comfy.sdxl_clip.SDXLTokenizer(embedding_directory=[str(folder)])),
        "demo": Clip(demo._Tokenizer()),
    }


def made(clip, caption, prompt, weights="", blend=""):
    return run("prompt_edit.PromptEdit", clip=clip, caption=caption, prompt=prompt, weights=weights, blend_words=blend)


LONG = " ".join(f"word{i} and" for i in range(60))
CASES = {
    "replaced": ("a red circle on blue", "a green circle on blue", ["red -> green"]),
    "inserted": ("a circle on blue", "a small circle on blue", ["inserted: small"]),
    "deleted": ("a small red circle on blue", "a red circle on blue", ["deleted: small"]),
    "the same": ("a red circle", "a red circle", ["kept: a red circle"]),
}
OF_CLIP = {
    "several tokens for a word": ("a jeep on snow", "a rollerskating-wombat on snow", ["jeep ->"]),
    "repeated": ("a cat and a cat", "a cat and a dog", ["cat -> dog"]),
    "punctuation": ("a cat, sleeping.", "a dog, sleeping.", ["cat -> dog"]),
    "weights": ("a (red:1.2) car", "a (green:1.3) car", ["red -> green"]),
    "embedding": ("a cat embedding:look", "a dog embedding:look", ["cat -> dog", "(embedding)"]),
    "above 77 tokens": (f"{LONG} cat", f"{LONG} dog", ["cat -> dog"]),
}


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize("name", CASES | OF_CLIP)
def test_clip_reads_words(name, kind, clips):
    caption, prompt, says = (CASES | OF_CLIP)[name]
    _, _, edit, report = made(clips[kind], caption, prompt)
    assert all(line in report for line in says), report
    assert edit.alignment.mapper.shape == (edit.caption[0][0].shape[1], edit.prompt[0][0].shape[1])


@pytest.mark.parametrize("name", CASES)
def test_the_demo_model_reads_words(name, clips):
    caption, prompt, says = CASES[name]
    report = made(clips["demo"], caption, prompt)[-1]
    assert all(line in report for line in says), report


@pytest.mark.parametrize(
    ("blend", "source", "target", "kept"),
    [
        ("", ["red"], ["green"], []),
        ("circle", ["circle"], ["circle"], []),
        ("circle\nblue, red", ["red", "circle", "blue"], ["circle", "blue"], []),
        ("-blue", ["red"], ["green"], ["blue"]),
        ("circle, -blue", ["circle"], ["circle"], ["blue"]),
    ],
)
def test_blend_words(blend, source, target, kept, clips):
    edit = made(clips["demo"], "a red circle on blue", "a green circle on blue", blend=blend)[2]
    read = lambda text, places: [text.words[text.tokens[i].word] for i in places]  # noqa: E731
    assert read(edit.alignment.source, edit.blend.source) == source
    assert read(edit.alignment.target, edit.blend.target) == target
    assert read(edit.alignment.source, edit.blend.kept_source) == kept


@pytest.mark.parametrize(
    ("caption", "prompt", "source", "target"),
    [
        (
            "a small red circle on blue",
            "a small red star on blue",
            ["small", "red", "circle"],
            ["small", "red", "star"],
        ),
        ("a circle on blue", "a star on blue", ["circle"], ["star"]),
        ("a red circle on blue", "a red circle on green", ["blue"], ["green"]),
        ("a red circle", "a red circle at night", [], ["at", "night"]),
    ],
)
def test_a_changed_thing_is_known_by_what_describes_it(caption, prompt, source, target, clips):
    for clip in (clips["demo"], clips["sd1"]):
        edit = made(clip, caption, prompt)[2]
        read = lambda text, places: [text.words[text.tokens[i].word] for i in places]  # noqa: E731
        assert read(edit.alignment.source, edit.blend.source) == source
        assert read(edit.alignment.target, edit.blend.target) == target


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize("caption", ["a red circle", LONG])
def test_a_chunk_ends_once(caption, kind, clips):
    """CLIP-L pads with its end token again."""
    text = texts.read_text(clips[kind], caption)
    assert [len(text.special(name)) for name in ("start", "end")] == [len(text.tokens) // 77] * 2


@pytest.mark.parametrize("name", ["sd1", "demo"])
def test_weights_of_words(name, clips):
    edit = made(clips[name], "a red circle", "a green circle", "green: 2, circle: 0.5")[2]
    found = {edit.alignment.target.words[t.word]: float(edit.weights[i])
             for i, t in enumerate(edit.alignment.target.tokens) if t.word is not None}  # fmt: skip
    assert found == {"a": 1.0, "green": 2.0, "circle": 0.5}


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize(
    ("caption", "prompt", "named", "says"),
    [
        ("a bar in snow", "a café in snow", "café", "bar -> café"),
        ("a hund in snow", "a Bär in snow", "BÄR", "hund -> bär"),
        ("一只猫在雪地上", "一只狗在雪地上", "一只狗", "猫 -> 狗"),
        ("синий круг", "красный круг", "красный", "синий -> красный"),
        ("a 🔴 on blue", "a 🟢 on blue", "🟢", "🔴 -> 🟢"),
    ],
)
def test_words_beyond_ascii_are_read_and_named(caption, prompt, named, says, kind, clips):
    """CLIP's pieces spell their bytes."""
    edit, report = made(clips[kind], caption, prompt, f"{named}: 2", named)[2:]
    places = texts.read_text(clips[kind], prompt).tokens_of(range(len(edit.alignment.target.words)))
    assert says in report and f"{named.casefold()[-1]} 2" in report
    assert edit.blend.target and {*edit.blend.target} <= {*places} and edit.weights[edit.blend.target].eq(2).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a red circle", "a green circle", "", "square"), "'square' is in neither text.*red, circle, green"),
        (("a red circle", "a green circle", "square: 2"), "'square' is not in the text.*green"),
        (("a red circle", "a green circle", "green"), "'green' is no weight of a word"),
        (("a red circle", "a green circle", "green: nan"), "must be a number"),
        (("a red circle", "a green circle", "green: 1e39"), r"'green' is 1e\+39: it must be a number"),
        (("", "a green circle"), "the caption has no words"),
        (("a red circle", ""), "the prompt has no words"),
        (("red circle", "a green square"), "no word in common"),
    ],
)
def test_refused(arguments, says, clips):
    with pytest.raises(Exception, match=says):
        made(clips["demo"], *arguments)


def test_every_word_has_a_column_and_punctuation_has_none(clips):
    named = pack("nodes.attention_maps")._named
    assert list(named(texts.read_text(clips["sd1"], "a 🔴 on, snow."), "")) == ["a", "🔴", "on", "snow"]
    with pytest.raises(Exception, match="has no words"):
        named(texts.read_text(clips["sd1"], "..."), "")


def test_a_checkpoint_without_a_text_encoder_is_said():
    with pytest.raises(Exception, match="holds no text encoder"):
        made(None, "a red circle", "a green circle")


def test_other_encoders_are_refused_by_name():
    class T5Tokenizer:
        def tokenize_with_weights(self, text, return_word_ids=False):
            return {"t5": [[(1, 1.0, 0)]]}

    with pytest.raises(Exception, match="T5Tokenizer"):
        texts.read_text(Clip(T5Tokenizer()), "a cat")


@pytest.fixture(scope="module")
def looked():
    """The shipped model on a clip whose circle moves: (images, masks, maps, mask, report)."""
    with torch.inference_mode():
        model, clip, vae = run("demo_model.LoadDemoModel")[:3]
        images, caption, truth = run(
            "demo_model.DemoClip", shape="circle", colour="red", background="blue", motion="slide", frames=3
        )[:3]
        inflated = run(
            "inflate_unet.InflateUNet", model=model, mode="EI²", coarse_ratio=2, temporal_module="STAM",
            attention="FFAM", stam_init="zero-query", seed=33,
        )[0]  # fmt: skip
        positive = clip.encode_from_tokens_scheduled(clip.tokenize(caption))
        latent = run(
            "invert_video.InvertVideo", model=inflated, latents={"samples": vae.encode(images)}, positive=positive,
            steps=10, fixed_point_iterations=0,
        )[0]  # fmt: skip
        arguments = {"model": inflated, "clip": clip, "latent": latent, "caption": caption}
        found = run("attention_maps.AttentionMaps", **arguments, words="red", images=images)
        every = run("attention_maps.AttentionMaps", **arguments)
        yield arguments, images, truth, found, every


def test_maps_lie_on_the_object(looked):
    """The mask of the word is inside the object's true mask in every frame, more than chance would have it."""
    _, _, truth, (_, mask, _), _ = looked
    true = torch.nn.functional.interpolate(truth[:, None], size=mask.shape[-2:], mode="area")[:, 0]
    inside = (mask * true).sum((1, 2)) / mask.sum((1, 2))
    assert (mask.sum((1, 2)) > 0).all()
    assert (inside > 2 * true.mean((1, 2))).all()


def test_a_picture_a_frame_a_column_a_word(looked):
    arguments, images, _, (one, _, report), (every, _, _) = looked
    words = [word for word in arguments["caption"].split() if word.isalnum()]
    assert len(one) == len(every) == len(images)
    assert every.shape[2] - one.shape[2] == 96 * (len(dict.fromkeys(words)) - 1)
    assert 0 <= every.min() <= every.max() <= 1
    assert "red: " in report and "output" in report


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"words": "square"}, "'square' is not in the text"),
        ({"caption": ""}, "has no words"),
        ({"clip": None}, "holds no text encoder"),
        ({"images": torch.zeros(2, 8, 8, 3)}, "2 frames and the latent 3"),
    ],
)
def test_maps_refused(change, says, looked):
    with pytest.raises(Exception, match=says):
        run("attention_maps.AttentionMaps", **looked[0] | change)


AS_IMAGES = {"RGBA": lambda x: torch.cat([x, x[..., :1]], -1), "beyond 0 to 1": lambda x: 2 * x - 0.5}


@pytest.mark.parametrize("made", AS_IMAGES.values(), ids=AS_IMAGES)
def test_maps_over_frames_of_other_channels_and_values(made, looked):
    arguments, images, _, (pictures, *_), _ = looked
    found = run("attention_maps.AttentionMaps", **arguments, words="red", images=made(images))[0]
    plain = made(images)[..., :3].clamp(0, 1)
    expected = run("attention_maps.AttentionMaps", **arguments, words="red", images=plain)[0]
    assert torch.equal(found, expected) and found.shape == pictures.shape


def test_maps_over_grey_frames(looked):
    arguments, images, *_ = looked
    both = images[..., :1], images[..., :1].expand_as(images)
    found, same = (run("attention_maps.AttentionMaps", **arguments, words="red", images=one)[0] for one in both)
    assert torch.equal(found, same)


def test_a_look_that_is_not_finite_is_said(looked, monkeypatch):
    base = looked[0]["model"].model
    original, calls = base.apply_model, []

    def spoiled(*args, **kwargs):
        calls.append(0)
        return original(*args, **kwargs) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(base, "apply_model", spoiled)
    with pytest.raises(Exception, match=r"not finite at step 3 of 5 \(sigma .*It computes in float32"):
        run("attention_maps.AttentionMaps", **looked[0])


def test_a_latent_without_its_record_is_refused(looked):
    """With a fix that this node has: it takes no steps."""
    bare = {"samples": looked[0]["latent"]["samples"]}
    with pytest.raises(
        Exception, match=r"not come from DDIM Invert Video.*; EI² Sampler and EI² DDIM Sampler also take"
    ):
        run("attention_maps.AttentionMaps", **looked[0] | {"latent": bare})
