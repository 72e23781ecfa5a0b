"""What the quality benchmark runs: clips written down before any result was seen, edits, methods, settings."""

from dataclasses import dataclass, replace
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
    """A row of the tables. tuned: whether it has anything to tune."""

    mode: str
    ratio: int = 2
    attention: str = "FFAM"
    temporal: str = "STAM"
    init: str = "zero-query"
    tuned: bool = True


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
}
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
