"""What an edit takes from its source at one step: recorded in a pass over the source, used in the pass over the edit.

Found by the place in the UNet and by the window of frames, so that the host may cut its calls as it likes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from ....ei2_modules.attention.control.blend import LocalBlend, WordMaps
from ....ei2_modules.attention.control.maps import controlled_attention, edited_word_maps, word_maps
from ....ei2_modules.attention.control.options import ControlOptions
from ....ei2_modules.errors import EI2Error
from ..inflating.attention_hooks import attend_as
from .hooks import plain_attention
from .looking import see, window_of
from .prompt_edit import PromptEdit


@dataclass
class Step:
    """Kept for one step only."""

    edit: PromptEdit
    options: ControlOptions
    number: int  # 0 for the first of all `steps`
    steps: int
    size: tuple[int, int]  # of the latent
    blend: LocalBlend | None  # its words are looked for
    fusing: WordMaps | None = None  # of this step's source: where self-attention stays the edit's own
    recorded: dict[tuple, tuple[Tensor, ...]] = field(default_factory=dict)

    def takes(self, share: str) -> bool:
        """share: "cross", "self", "temporal" or "feature"."""
        return self.number < self.options.steps_of(f"{share}_share", self.steps)

    @property
    def needs_source(self) -> bool:
        return self.blend is not None or any(map(self.takes, ("cross", "self", "temporal", "feature")))

    def counts(self, extra: dict) -> bool:
        """Whether maps of this level are taken: not those that are finer than asked for."""
        h, w = extra["activations_shape"][-2:]
        return h * w <= self.options.finest**2 * self.size[0] * self.size[1] * ROUNDED

    def keep(self, what: str, extra: dict, *tensors: Tensor) -> None:
        self.recorded[(what, *_key(extra))] = tensors

    def of(self, what: str, extra: dict) -> tuple[Tensor, ...]:
        found = self.recorded.get((what, *_key(extra)))
        if found is None:
            raise EI2Error(
                "Attention control misses what the source's pass should have left at a block of the UNet: another node "
                "runs other blocks or windows for the edit than for its source. Take such nodes off the model."
            )
        return found


ROUNDED = 1.3  # odd sides are rounded up at each level of the UNet


class Recording:
    """In the pass over the source, under its caption alone. Changes nothing."""

    def __init__(self, step: Step):
        self.step = step

    def self_attention(self, attend: Callable, q: Tensor, k: Tensor, extra: dict) -> Tensor:
        if self.step.takes("self") and self.step.counts(extra):
            _check_whole(q, extra)
            self.step.keep("self", extra, q, k)
        return attend(q, k)

    def temporal_attention(self, q: Tensor, k: Tensor, extra: dict) -> tuple[Tensor, Tensor]:
        if self.step.takes("temporal"):
            self.step.keep("temporal", extra, q, k)
        return q, k

    def text_attention(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra: dict, is_plain: bool) -> Tensor:
        if self.step.takes("cross") and self.step.counts(extra):
            self.step.keep("text", extra, q, k)
        if self.step.blend is not None:
            words = self.step.edit.blend
            see(self.step.blend.words["source"], q, k, words.source, extra)
            see(self.step.blend.negative["source"], q, k, words.kept_source, extra)
        if self.step.fusing is not None and self.step.takes("self"):
            see(self.step.fusing, q, k, self.step.edit.blend.source, extra)
        return out

    def features(self, h: Tensor, options: dict) -> Tensor:
        if self.step.takes("feature"):
            self.step.keep("features", options, h)
        return h


class Editing:
    """In the pass over the edit, whose rows are clips under its texts: 0 is the prompt, 1 what it avoids."""

    def __init__(self, step: Step):
        self.step = step

    def self_attention(self, attend: Callable, q: Tensor, k: Tensor, extra: dict) -> Tensor:
        """By queries and keys of the source."""
        if not (self.step.takes("self") and self.step.counts(extra)):
            return attend(q, k)
        taken = attend(*self._taken("self", (q, k), extra))
        if self.step.fusing is None:
            return taken
        return taken + self._own(len(q), extra).to(taken) * (attend(q, k) - taken)

    def temporal_attention(self, q: Tensor, k: Tensor, extra: dict) -> tuple[Tensor, Tensor]:
        return self._taken("temporal", (q, k), extra) if self.step.takes("temporal") else (q, k)

    def text_attention(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra: dict, is_plain: bool) -> Tensor:
        """is_plain: `out` is plain attention; if not, what another node added to it stays."""
        taken, tokens = self.step.takes("cross") and self.step.counts(extra), self.step.edit.alignment.mapper.shape[1]
        for part in _parts(len(q), extra, of_prompt=True):
            own = q[part], k[part, :tokens], v[part, :tokens]  # the host repeats a shorter text
            self._see(*own[:2], extra, taken)
            if taken:
                found = self._controlled(*own, extra)
                out[part] = found if is_plain else out[part] + found - plain_attention(*own, extra)
        return out

    def features(self, h: Tensor, options: dict) -> Tensor:
        return self._taken("features", (h,), options)[0] if self.step.takes("feature") else h

    def _taken(self, name: str, rows: tuple[Tensor, ...], extra: dict) -> tuple[Tensor, ...]:
        """The source's in the place of rows of a call: under every text, or under the prompt alone."""
        taken = _repeated(self.step.of(name, extra), rows)
        if self.step.options.both_texts:
            return taken
        for part in _parts(len(rows[0]), extra, of_prompt=False):
            for found, own in zip(taken, rows, strict=True):
                found[part] = own[part]
        return taken

    def _own(self, rows: int, extra: dict) -> Tensor:
        """(rows, l, 1) of a call, 1 where FateZero leaves self-attention to the edit: where the old words are seen."""
        seen, window = self.step.fusing.relative(at=tuple(extra["activations_shape"][-2:])), window_of(extra)
        mask = (seen if window is None else seen[list(window)]) > self.step.options.fuse_threshold
        return mask.flatten(1)[:, :, None].repeat(rows // len(mask), 1, 1)

    def _see(self, q: Tensor, k: Tensor, extra: dict, taken: bool) -> None:
        if self.step.blend is not None:
            maps = self._taken_maps(extra) if taken and self.step.options.blend_taken else word_maps
            words = self.step.edit.blend
            see(self.step.blend.words["target"], q, k, words.target, extra, maps)
            see(self.step.blend.negative["target"], q, k, words.kept_target, extra, maps)

    def _taken_maps(self, extra: dict) -> Callable[..., Tensor]:
        edit, source = self.step.edit, self.step.of("text", extra)
        return lambda q, k, heads, tokens: edited_word_maps(q, k, *source, heads, tokens, edit.alignment, edit.weights)

    def _controlled(self, q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
        source = self.step.of("text", extra)
        _check(source[0], q)
        edit, heads = self.step.edit, extra["n_heads"]
        return controlled_attention(q, k, v, *source, heads, edit.alignment, edit.weights, attend=attend_as(extra))


def _key(extra: dict) -> tuple:
    return (*extra["block"], extra.get("block_index"), window_of(extra))


def _parts(rows: int, extra: dict, of_prompt: bool) -> list[slice]:
    """Of the rows of a call, those under the prompt, text by text; or those under what it avoids."""
    texts = extra["cond_or_uncond"]
    each = rows // len(texts)
    return [slice(i * each, (i + 1) * each) for i, text in enumerate(texts) if (text == 0) == of_prompt]


def _repeated(source: tuple[Tensor, ...], rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The source's under every text of a call."""
    for a, b in zip(source, rows, strict=True):
        if len(b) % len(a) or a.shape[1:] != b.shape[1:]:
            _check(a, b)
    return tuple(a.repeat(len(b) // len(a), *[1] * (a.ndim - 1)) for a, b in zip(source, rows, strict=True))


def _check_whole(q: Tensor, extra: dict) -> None:
    h, w = extra["activations_shape"][-2:]
    if q.shape[1] != h * w:
        raise EI2Error(
            f"Attention control takes the clip's self-attention, and another node (HyperTile, Token Merging) leaves "
            f"{q.shape[1]} of its {h * w} places, others for the edit than for the clip. Take it off the model, or "
            "choose kind custom with self_share 0."
        )


def _check(source: Tensor, rows: Tensor) -> None:
    if source.shape != rows.shape:
        raise EI2Error(
            f"Attention control finds {tuple(rows.shape)} of the edit beside {tuple(source.shape)} of its source: "
            "another node cuts the picture or the batch apart (HyperTile, Tiled Diffusion). Take it off the model."
        )
