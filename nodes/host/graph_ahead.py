"""Faults of later nodes, found before a long one begins: the host checks what is wired by its type alone."""

from collections.abc import Callable, Iterator

from comfy_execution.graph_utils import is_link

from ...ei2_modules.errors import EI2Error
from .progress import warn
from .prompt_graph import typed_words, words_behind

INFLATE, INVERT, TUNE, EDIT, DEMO, CONTROL, NULL_TEXT = (
    "EI2InflateUNet", "EI2InvertVideo", "EI2OneShotTune", "EI2PromptEdit", "EI2LoadDemoModel", "EI2AttentionControl",
    "EI2NullText",
)  # fmt: skip
SAMPLERS = ("EI2Sampler", "EI2DDIMSampler", "EI2SeveralEdits")
TAKE_NOISE = (*SAMPLERS, "EI2EditGuider", "EI2AttentionMaps", NULL_TEXT)
GUIDED = ("EI2Sampler", "EI2EditGuider")  # by their own cfg alone
CLEAN = ("VAEEncode", "VAEEncodeTiled", "VAEEncodeForInpaint", "EmptyLatentImage")
LATENTS = ("samples", "latent", "latents")  # inputs that latents pass through
TEXTS = ("clip", "conditioning", "positive", "conditioning_1", "conditioning_to")


def look_ahead(hidden) -> None:
    """hidden: of the node that is about to take long (V3's, or None outside a server).

    Raises EI2Error with what the nodes after it would refuse; says what they would do without effect.
    """
    if hidden is None or not hidden.prompt or hidden.unique_id not in hidden.prompt:
        return
    prompt, faults = hidden.prompt, []
    tunes = _kind(prompt, hidden.unique_id) == TUNE  # or what is of no effect on tuning would be said again later
    for node_id in _concerned(prompt, hidden.unique_id):
        faults += _faults(prompt, node_id)
        for line in _without_effect(prompt, node_id) if tunes else ():
            warn(line)
    if faults:
        raise EI2Error(" ".join(["Nothing was begun: a node would refuse what it gets.", *dict.fromkeys(faults)]))


def _faults(prompt: dict, node_id: str) -> Iterator[str]:
    kind, me = _kind(prompt, node_id), _name(prompt, node_id)
    if kind in (*TAKE_NOISE, INVERT):
        models = list(_back(prompt, node_id, "model", ("model",)))
        if models and _loads(prompt, models[-1]) and not _any(prompt, models, INFLATE):
            yield (
                f"{me} gets the plain model of {_name(prompt, models[-1])}: wire the MODEL of One-Shot Tune or "
                "Inflate UNet to EI² into it."
            )
        texts = list(_back(prompt, node_id, "positive", TEXTS))
        if models and texts and _loads(prompt, models[-1]) and _loads(prompt, texts[-1]):
            demo = [_kind(prompt, found[-1]) == DEMO for found in (models, texts)]
            if demo[0] != demo[1]:
                yield (
                    f"The text of {me} is encoded by the CLIP of {_name(prompt, texts[-1])}, but its model is that of "
                    f"{_name(prompt, models[-1])}: take both from one loader."
                )
    if kind in TAKE_NOISE:
        latents = list(_back(prompt, node_id, "latent", LATENTS))
        if latents and _kind(prompt, latents[-1]) in CLEAN and not _any(prompt, latents, INVERT):
            yield (
                f"{me} gets the latents of {_name(prompt, latents[-1])}, which are not inverted: wire the LATENT of "
                "DDIM Invert Video into it."
            )
        yield from _same_words(prompt, node_id)
        yield from _unfit_null_text(prompt, node_id)


def _unfit_null_text(prompt: dict, node_id: str) -> Iterator[str]:
    """Of attention control whose source is under null text."""
    for control in _back(prompt, node_id, "control", ()):
        inputs = prompt[control]["inputs"]
        if _kind(prompt, control) != CONTROL or inputs.get("source") != "null text":
            continue
        if "null_text" not in inputs:
            yield (
                f"{_name(prompt, control)} has source null text and nothing in null_text: wire Null-Text Inversion "
                "into it, or choose source along the inversion."
            )
        for fitted in _back(prompt, control, "null_text", ()):
            cfgs = [prompt[one]["inputs"].get("cfg") for one in (fitted, node_id)]
            known = _kind(prompt, fitted) == NULL_TEXT and _kind(prompt, node_id) in GUIDED
            if known and all(isinstance(cfg, (int, float)) for cfg in cfgs) and cfgs[0] != cfgs[1]:
                yield (
                    f"{_name(prompt, fitted)} fits cfg {cfgs[0]:g}, and {_name(prompt, node_id)} has cfg {cfgs[1]:g}: "
                    "set both to the same."
                )


def _same_words(prompt: dict, node_id: str) -> Iterator[str]:
    """Of attention control, by Prompt Edit."""
    for edit in _back(prompt, node_id, "control", ("prompt_edit",)):
        if _kind(prompt, edit) == EDIT:
            caption, new = (typed_words(prompt, edit, name) for name in ("caption", "prompt"))
            empty = " and ".join(name for name, words in (("caption", caption), ("prompt", new)) if words == "")
            if empty:
                yield f"{_name(prompt, edit)} has no {empty}: say there what the clip shows, and what the edit shall."
            elif caption is not None and caption == new:
                yield f"{_name(prompt, edit)} has {new!r} as caption and as prompt: change a word of the prompt."


def _without_effect(prompt: dict, node_id: str) -> Iterator[str]:
    kind, me = _kind(prompt, node_id), _name(prompt, node_id)
    if kind == TUNE and words_behind(prompt, node_id, "positive") == "":
        yield f"{me} learns an empty caption: words for what the clip shows tie it to the words of an edit"
    if kind in SAMPLERS and "control" not in prompt[node_id]["inputs"]:
        tuned = [found for found in _back(prompt, node_id, "model", ("model",)) if _kind(prompt, found) == TUNE]
        words = words_behind(prompt, node_id, "positive")
        if words and any(words == words_behind(prompt, found, "positive") for found in tuned):
            yield f"{me} has the caption that was tuned on, {words!r}, as its prompt: it gives the clip again, no edit"


def _concerned(prompt: dict, node_id: str) -> list[str]:
    """The nodes that need this one, itself, and what else those need."""
    users: dict[str, list[str]] = {name: [] for name in prompt}
    for name in prompt:
        for needed in _linked(prompt, name):
            users.setdefault(needed, []).append(name)
    after = _reached({node_id}, users.__getitem__)
    return sorted(_reached(after, lambda name: [other for other in _linked(prompt, name) if other in prompt]))


def _reached(start: set[str], following: Callable[[str], list[str]]) -> set[str]:
    found, waiting = set(start), list(start)
    while waiting:
        new = set(following(waiting.pop())) - found
        found |= new
        waiting += new
    return found


def _back(prompt: dict, node_id: str, name: str, through: tuple[str, ...]) -> Iterator[str]:
    """The nodes that an input comes from, one after the other, as long as they have an input of these names."""
    link, seen = prompt[node_id]["inputs"].get(name), set()
    while is_link(link) and link[0] in prompt and link[0] not in seen:
        seen.add(link[0])
        yield link[0]
        inputs = prompt[link[0]]["inputs"]
        link = next((inputs[name] for name in through if is_link(inputs.get(name))), None)


def _linked(prompt: dict, node_id: str) -> list[str]:
    return [value[0] for value in prompt[node_id]["inputs"].values() if is_link(value)]


def _loads(prompt: dict, node_id: str) -> bool:
    """A node that needs no other: what it gives is its own."""
    return not _linked(prompt, node_id)


def _any(prompt: dict, nodes: list[str], kind: str) -> bool:
    return any(_kind(prompt, node_id) == kind for node_id in nodes)


def _kind(prompt: dict, node_id: str) -> str:
    return prompt[node_id].get("class_type", "")


def _name(prompt: dict, node_id: str) -> str:
    """As the editor shows it."""
    shown = prompt[node_id].get("_meta") or {}
    return f"{shown.get('title') or _kind(prompt, node_id)} (node {node_id})"
