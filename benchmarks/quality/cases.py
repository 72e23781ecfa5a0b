"""What the quality benchmark runs: clips written down before any result was seen, edits, methods, settings."""

from dataclasses import dataclass, field, replace
from random import Random

from ei2_modules.demo import clips, scenes, vocabulary

KINDS = ("colour", "shape", "background", "style")
LOOKS = (("plain", "night"), ("plain", "pastel"), ("plain", "outline"), ("striped", "plain"), ("dotted", "plain"))
CLIP_SEED, CHOICE_SEED = 2023, 7
MOTIONS = ("slide", "grow", "turn", "two objects", "behind a bar", "moving light")
CHOICE_MOTIONS = ("slide", "turn", "behind a bar")  # of the clips that settings are chosen on


@dataclass(frozen=True)
class Case:
    """A clip and its four edits, as scenes and as captions."""

    name: str
    clip: tuple
    edits: dict[str, tuple]

    @property
    def caption(self) -> str:
        return clips.clip_caption(list(self.clip))

    def prompt(self, kind: str, weight: float = 1.0) -> str:
        """Of an edit. weight: of the words that the caption does not have."""
        prompt, known = clips.clip_caption(list(self.edits[kind])), self.caption.split()
        if weight == 1:
            return prompt
        return " ".join(word if word in known else f"({word}:{weight:g})" for word in prompt.split())


def cases(seed: int = CLIP_SEED) -> list[Case]:
    """Every motion twice, once forwards and once backwards, each with a scene of its own."""
    random = Random(seed)
    found = [_case(random, motion, backwards) for backwards in (False, True) for motion in MOTIONS]
    return [replace(case, name=f"{i + 1:02} {case.name}") for i, case in enumerate(found)]


def choice_cases(seed: int = CHOICE_SEED) -> list[Case]:
    """Other clips, for choosing settings."""
    random = Random(seed)
    found = [_case(random, motion, False) for motion in CHOICE_MOTIONS]
    return [replace(case, name=f"choice {i + 1} {case.name}") for i, case in enumerate(found)]


def _case(random: Random, motion: str, backwards: bool) -> Case:
    colour, background = random.sample(list(vocabulary.COLOURS), 2)
    shape, other_shape = random.sample(vocabulary.SHAPES, 2)
    light = (random.uniform(-0.2, 0.2), random.uniform(-0.2, 0.2))
    thing = scenes.Thing(shape, colour, radius=random.uniform(0.2, 0.24), angle=random.uniform(-0.2, 0.2))
    scene = scenes.Scene((thing,), background, light=light)
    clip = tuple(clips.moving(scene, motion, backwards=backwards))
    texture, style = random.choice(LOOKS)
    taken = {thing.colour for thing in clip[0].things} | {background}
    other, ground = random.sample([name for name in vocabulary.COLOURS if name not in taken], 2)
    edits = {
        "colour": tuple(s.change(colour=other) for s in clip),
        "shape": tuple(s.change(shape=other_shape) for s in clip),
        "background": tuple(replace(s, background=ground) for s in clip),
        "style": tuple(replace(s.change(texture=texture), style=style) for s in clip),
    }
    return Case(f"{motion}{', backwards' if backwards else ''}", clip, edits)


@dataclass(frozen=True)
class Method:
    """A row of the tables. tuned: whether it has anything to tune.

    control: "" for none, BY_KIND, or a kind of Attention Control for all edits. change: its fields that differ.
    """

    mode: str
    ratio: int = 2
    attention: str = "FFAM"
    temporal: str = "STAM"
    init: str = "zero-query"
    tuned: bool = True
    control: str = ""
    change: dict = field(default_factory=dict)
    inversion: str = ""  # the text of the inversion, where the method itself says; else that of the settings
    null_text: dict | None = None  # of Null-Text Inversion, where the source is under null text
    key_frame: bool = False  # carried through the clip in edits of shape, inside the true masks, and sampled again


BY_KIND = "by kind"  # of the edit
KIND_OF = {"colour": "appearance", "shape": "shape", "background": "background", "style": "style"}
UNTUNED = {"mode": "EI²", "tuned": False, "control": BY_KIND}
PUBLISHED = {"inner_steps": 10, "branch": "source only", "steps": "all"}  # null text of Video-P2P
ZERO = {"inner_steps": 1, "branch": "source and edit", "steps": "last half"}  # of vid2vid-zero

METHODS = {
    "per-frame": Method("custom", attention="per-frame", temporal="none", tuned=False),
    "Tune-A-Video": Method("Tune-A-Video"),
    "EI² r=2": Method("EI²"),
    "EI² r=4": Method("EI²", ratio=4),
    # the paper's Figure 4: other temporal modules with FFAM
    "FFAM + layer norm": Method("custom", temporal="layer norm"),
    "FFAM + layer norm without scale": Method("custom", temporal="layer norm without scale"),
    "FFAM + instance norm": Method("custom", temporal="instance norm"),
    "FFAM + instance norm without scale": Method("custom", temporal="instance norm without scale"),
    "FFAM + IC without SN": Method("custom", temporal="IC without SN"),
    "FFAM, no temporal module": Method("custom", temporal="none"),
    # Figure 5: other attentions with STAM
    "SCA + STAM": Method("custom", attention="SCA"),
    "first-frame + STAM": Method("custom", attention="first-frame"),
    "dense + STAM": Method("custom", attention="dense"),
    "per-frame + STAM": Method("custom", attention="per-frame"),
    # the starts of STAM
    "EI² r=2, random start": Method("EI²", init="random"),
    "EI² r=2, clamp start": Method("EI²", init="clamp"),
    # attention control, ours and the published systems'
    "per-frame + control": Method("custom", attention="per-frame", temporal="none", tuned=False, control=BY_KIND),
    "EI² untuned": Method("EI²", tuned=False),
    "EI² untuned + control": Method(**UNTUNED),
    "EI² untuned + control, key frame": Method(**UNTUNED, key_frame=True),
    "EI² + control": Method("EI²", control=BY_KIND),
    "Video-P2P": Method("Video-P2P", control="Video-P2P", inversion="caption", null_text=PUBLISHED),
    "vid2vid-zero": Method("vid2vid-zero", tuned=False, control="vid2vid-zero", inversion="empty", null_text=ZERO),
    "FateZero": Method("FateZero", tuned=False, control="FateZero", inversion="caption"),
    # what each part of the control does, without tuning
    "control without cross": Method(**UNTUNED, change={"cross_share": 0.0}),
    "control without self": Method(**UNTUNED, change={"self_share": 0.0}),
    "control without features": Method(**UNTUNED, change={"feature_share": 0.0}),
    "control without blend": Method(**UNTUNED, change={"blend_threshold": 0.0}),
    "control without fresh noise": Method(**UNTUNED, change={"noise_share": 0.0}),
    "control by own prediction": Method(**UNTUNED, change={"source": "own prediction"}),
}
CONTROLLED = (
    "EI² untuned", "per-frame + control", "EI² untuned + control", "EI² untuned + control, key frame", "EI² + control",
    "vid2vid-zero", "FateZero", "Video-P2P",
)  # fmt: skip
ABLATED = ("EI² untuned + control", *(name for name in METHODS if name.startswith("control ")))
MODULES = tuple(
    name for name, method in METHODS.items() if (method.tuned and not method.control) or name == "per-frame"
)
MAIN = ("per-frame", "Tune-A-Video", "EI² r=2", "EI² r=4")
BUDGETED = ("Tune-A-Video", "EI² r=2")


@dataclass(frozen=True)
class Settings:
    """The same for every method. Rate, guidance and inversion were chosen by `bench quality choose`."""

    steps: int = 100  # of tuning
    learning_rate: float = 1e-3
    ddim_steps: int = 25
    guidance: float = 3.0
    inversion: str = "empty"  # the text of the inversion: "empty" or "caption"
    weight: float = 1.0  # of the edit's own words in the prompt


BUDGETS = (0, 50, 100, 200, 500)  # steps of tuning
WEIGHTS = (0.7, 0.4)
CHOICES = tuple(  # what differs only after the tuning comes last: such runs share it
    Settings(learning_rate=rate, guidance=guidance, inversion=text)
    for rate in (1e-4, 3e-4, 1e-3)
    for guidance in (3.0, 5.0)
    for text in ("empty", "caption")
)
