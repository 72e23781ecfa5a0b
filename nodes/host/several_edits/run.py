"""Several edits one after another, on one tuning and one inversion: to be read from top to end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....ei2_modules.errors import EI2Error
from .. import conditioning
from ..control.guider import Control, ControlledGuider
from ..control.prompt_edit import PromptEdit, make_prompt_edit
from ..inflating.inflate import Inflated
from ..latents import pixels
from ..progress import Progress, show_text
from ..sampling import run as sampling
from ..sampling.controlled import controlled_guider
from ..sampling.inverted import Inverted, partway
from .listing import Edit

NODE = "Several Edits"


@contextmanager
def naming(edit: Edit) -> Iterator[None]:
    """What is refused is said of the edit that it is about."""
    try:
        yield
    except EI2Error as error:
        raise EI2Error(f"{edit.name}: {error}") from error


@dataclass
class EditRun:
    """The run, and what is done of it when it stops early."""

    model: ModelPatcher
    inflated: Inflated
    start: Inverted
    text_encoder: object
    vae: object
    negative: list
    caption: str
    edits: Sequence[Edit]
    images: list[Tensor] = field(default_factory=list)  # (n, h, w, 3) in 0..1 of each that is done
    seconds: list[float] = field(default_factory=list)

    def execute(self) -> None:
        """Everything that can be refused is refused before the first step."""
        texts = {prompt: self._texts(prompt) for prompt in dict.fromkeys(edit.prompt for edit in self.edits)}
        guiders = [self._guider(edit, texts[edit.prompt]) for edit in self.edits]
        begins = {s: partway(self.model, self.start, s) for s in dict.fromkeys(edit.strength for edit in self.edits)}
        progress = Progress(self.model, sum(begins[edit.strength][1].steps for edit in self.edits))
        for i, (edit, guider) in enumerate(zip(self.edits, guiders, strict=True), 1):
            samples, schedule = begins[edit.strength]
            show_text(f"{i} of {len(self.edits)}: {edit.name}{self._left()}")
            began = time.monotonic()
            with naming(edit):
                edited = sampling.sample(
                    self.model, samples, texts[edit.prompt].prompt, self.negative, edit.cfg, schedule,
                    progress.callback(), seed=edit.seed, kept=self.start.kept, guider=guider,
                )  # fmt: skip
                self.images.append(pixels(self.vae, edited))
            self.seconds.append(time.monotonic() - began)

    def _texts(self, prompt: str) -> PromptEdit:
        return make_prompt_edit(self.text_encoder, self.caption, prompt, "", "")

    def _guider(self, edit: Edit, texts: PromptEdit) -> ControlledGuider | None:
        """None without control: the host's own then."""
        with naming(edit):
            if edit.options is None:
                conditioning.check(texts.prompt, "prompt", self.inflated.spec)
                return None
            chosen = Control(texts, edit.options)
            return controlled_guider(self.model, self.inflated, chosen, self.start, texts.prompt, edit.cfg, NODE)

    def _left(self) -> str:
        if not self.seconds:
            return ""
        left = (len(self.edits) - len(self.seconds)) * sum(self.seconds) / len(self.seconds)
        return f"\nabout {max(1, round(left))} s left"

    def report(self) -> str:
        """A line an edit, and the time."""
        timed = zip(self.edits, self.seconds, strict=False)
        done = [f"{edit.name}: {seconds:.1f} s" for edit, seconds in timed]
        return "\n".join([f"{len(done)} of {len(self.edits)} edits, {sum(self.seconds):.0f} s", *done])
