"""What an edit takes from its source at one step: recorded in a pass over the source, used in the pass over the edit.

Found by the place in the UNet and by the window of frames, so that the host may cut its calls as it likes.
"""

from dataclasses import dataclass, field

import comfy.ldm.modules.attention as host_attention
from torch import Tensor

from ....ei2_modules.attention.control.blend import LocalBlend, WordMaps
from ....ei2_modules.attention.control.maps import controlled_attention, word_maps
from ....ei2_modules.attention.control.options import ControlOptions
from ....ei2_modules.errors import EI2Error
from .prompt_edit import PromptEdit


@dataclass
class Step:
    """Kept for one step only. share: how much of the sampling is done."""

    edit: PromptEdit
    options: ControlOptions
    share: float
    blend: LocalBlend | None
    recorded: dict[tuple, tuple[Tensor, ...]] = field(default_factory=dict)

    @property
    def cross(self) -> bool:
        return self.share < self.options.cross_share

    @property
    def own(self) -> bool:
        return self.share < self.options.self_share

    @property
    def features(self) -> bool:
        return self.share < self.options.feature_share

    @property
    def needs_source(self) -> bool:
        return self.cross or self.own or self.features or self.blend is not None


class Looking:
    """In a pass over the source before the first step: where some words of its caption are seen."""

    def __init__(self, words: WordMaps, tokens: list[int]):
        self.words, self.tokens = words, tokens

    def self_attention(self, q: Tensor, k: Tensor, extra: dict) -> tuple[Tensor, Tensor]:
        return q, k

    def text_attention(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra: dict, plain: bool) -> Tensor:
        _look(self.words, q, k, self.tokens, extra)
        return out

    def features(self, h: Tensor, options: dict) -> Tensor:
        return h


class Recording:
    """In the pass over the source, under its caption alone."""

    def __init__(self, step: Step):
        self.step = step

    def self_attention(self, q: Tensor, k: Tensor, extra: dict) -> tuple[Tensor, Tensor]:
        if self.step.own:
            self.step.recorded[("self", *_key(extra))] = (q, k)
        return q, k

    def text_attention(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra: dict, plain: bool) -> Tensor:
        if self.step.cross:
            self.step.recorded[("text", *_key(extra))] = (q, k)
        _see(self.step, "source", q, k, self.step.edit.blend.source, extra)
        return out

    def features(self, h: Tensor, options: dict) -> Tensor:
        if self.step.features:
            self.step.recorded[("features", _window(options))] = (h,)
        return h


class Editing:
    """In the pass over the edit, whose rows are clips under its texts: 0 is the prompt, 1 what it avoids."""

    def __init__(self, step: Step):
        self.step = step

    def self_attention(self, q: Tensor, k: Tensor, extra: dict) -> tuple[Tensor, Tensor]:
        """Queries and keys of the source under every text."""
        if not self.step.own:
            return q, k
        return tuple(_repeated(source, rows) for source, rows in zip(self._of("self", extra), (q, k), strict=True))

    def text_attention(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra: dict, plain: bool) -> Tensor:
        """plain: `out` is plain attention; if not, what another node added to it stays."""
        edit, texts = self.step.edit, extra["cond_or_uncond"]
        rows = [part for part, text in zip(_parts(len(q), len(texts)), texts, strict=True) if text == 0]
        tokens = edit.alignment.mapper.shape[1]
        for part in rows:
            own_q, own_k, own_v = q[part], k[part, :tokens], v[part, :tokens]  # the host repeats a shorter text
            _see(self.step, "target", own_q, own_k, edit.blend.target, extra)
            if not self.step.cross:
                continue
            q_src, k_src = self._of("text", extra)
            _check(q_src, own_q)
            found = controlled_attention(
                own_q, own_k, own_v, q_src, k_src, extra["n_heads"], edit.alignment, edit.weights, attend=_attend(extra)
            )
            out[part] = found if plain else out[part] + found - _attend(extra)(own_q, own_k, own_v, extra["n_heads"])
        return out

    def features(self, h: Tensor, options: dict) -> Tensor:
        if not self.step.features:
            return h
        (source,) = self.step.recorded[("features", _window(options))]
        return _repeated(source, h)

    def _of(self, what: str, extra: dict) -> tuple[Tensor, ...]:
        found = self.step.recorded.get((what, *_key(extra)))
        if found is None:
            raise EI2Error(
                "Attention control misses what the source's pass should have left at a block of the UNet: another node "
                "runs other blocks or windows for the edit than for its source. Take such nodes off the model."
            )
        return found


def _see(step: Step, side: str, q: Tensor, k: Tensor, tokens: list[int], extra: dict) -> None:
    """Where words are seen, for the local blend."""
    if step.blend is not None:
        _look(step.blend.words[side], q, k, tokens, extra)


def _look(words: WordMaps, q: Tensor, k: Tensor, tokens: list[int], extra: dict) -> None:
    size, window = tuple(extra["activations_shape"][-2:]), _window(extra)
    if tokens and words.counts(size):
        words.add(word_maps(q, k, extra["n_heads"], tokens), size, window and list(window))


def _attend(extra: dict):
    def attend(q, k, v, heads):
        return host_attention.optimized_attention(
            q, k, v, heads, attn_precision=extra["attn_precision"], transformer_options=extra
        )

    return attend


def _key(extra: dict) -> tuple:
    return (*extra["block"], extra["block_index"], _window(extra))


def _window(options: dict) -> tuple[int, ...] | None:
    window = options.get("context_window")
    return None if window is None else tuple(window.index_list)


def _parts(rows: int, texts: int) -> list[slice]:
    each = rows // texts
    return [slice(i * each, (i + 1) * each) for i in range(texts)]


def _repeated(source: Tensor, rows: Tensor) -> Tensor:
    """For every text of a call."""
    if len(rows) % len(source) or source.shape[1:] != rows.shape[1:]:
        _check(source, rows)
    return source.repeat(len(rows) // len(source), *[1] * (source.ndim - 1))


def _check(source: Tensor, rows: Tensor) -> None:
    if source.shape != rows.shape:
        raise EI2Error(
            f"Attention control finds {tuple(rows.shape)} of the edit beside {tuple(source.shape)} of its source: "
            "another node cuts the picture or the batch apart (HyperTile, Tiled Diffusion). Take it off the model."
        )
