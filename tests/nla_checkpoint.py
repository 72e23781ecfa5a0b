"""Small networks in the shape of Layered Neural Atlases, what they say by the published formulas, written out for one
point at a time, and the files that its published code would leave of them."""

import json
import math

import torch

KEYS = {
    "foreground": "model_F_mapping1_state_dict",
    "background": "model_F_mapping2_state_dict",
    "alpha": "model_F_alpha_state_dict",
    "atlas": "F_atlas_state_dict",
}


def random_state(inputs, outputs, frequencies=0, layers=4, skips=(), width=16, gain=0.5, seed=0):
    """As PyTorch names the parts of such a network."""
    generator = torch.Generator().manual_seed(seed)
    first = 2 * inputs * frequencies or inputs
    state = {}
    for k in range(layers):
        taken = first if k == 0 else width + (first if k in skips else 0)
        given = outputs if k == layers - 1 else width
        weight = torch.randn(given, taken, generator=generator) * gain * (2 / taken) ** 0.5
        state[f"hidden.{k}.weight"] = weight
        state[f"hidden.{k}.bias"] = 0.1 * torch.randn(given, generator=generator)
    return state


def plane_state(scale=0.8, bend=0.0, shift=(0.0, 0.0, 0.0), layers=4, width=16, seed=0):
    """A mapping network near uv = scale (x, y) + what time moves, as those of a training are; bend: how far from it.

    x + 3 and y + 3 are carried past every ReLU by a unit each; the other units are random.
    """
    state = random_state(3, 2, layers=layers, width=width, seed=seed)
    for k in range(layers):
        weight, bias = state[f"hidden.{k}.weight"], state[f"hidden.{k}.bias"]
        if k == layers - 1:
            weight.mul_(bend), bias.mul_(bend)
        for i in range(2):
            weight[i] = bend * weight[i] if k == layers - 1 else 0.0
            weight[i, i] = scale if k == layers - 1 else 1.0
            if k == 0:
                weight[i, 2] = shift[i]
            bias[i] = -3 * scale if k == layers - 1 else 3.0 * (k == 0)
    return state


def random_states(bend=0.2, gain=0.5, alpha=5, atlas=4):
    """Of all four networks, by their names."""
    opaque = random_state(3, 1, alpha, layers=5, gain=2 * gain, seed=3)
    opaque["hidden.4.weight"] *= 3
    opaque["hidden.4.bias"] += 1
    return {
        "foreground": plane_state(0.6, bend, (0.2, 0.1), layers=6, seed=1),
        "background": plane_state(0.7, bend, (-0.1, 0.05), layers=4, seed=2),
        "alpha": opaque,
        "atlas": random_state(2, 3, atlas, layers=8, skips=(4, 7), gain=gain, seed=4),
    }


def slow(state, point, frequencies=0, skips=()):
    """What a network says of one point, a list of numbers; in float64."""
    values = [float(v) for v in point]
    if frequencies:
        values = [f(v * 2**k * math.pi) for k in range(frequencies) for f in (math.sin, math.cos) for v in values]
    first = values
    for k in range(len(state) // 2):
        if k > 0:
            values = [max(v, 0.0) for v in values]
        if k in skips:
            values = values + first
        rows, bias = state[f"hidden.{k}.weight"].double().tolist(), state[f"hidden.{k}.bias"].double().tolist()
        values = [sum(a * v for a, v in zip(row, values, strict=True)) + b for row, b in zip(rows, bias, strict=True)]
    return [math.tanh(v) for v in values]


def slow_pixel(states, j, i, f, n, size, alpha=5, mapping=0):
    """uv of both layers and alpha of pixel (j, i) of frame f."""
    longer = max(size)
    point = [j / (longer / 2) - 1, i / (longer / 2) - 1, f / (n / 2) - 1]
    uv = [slow(states[name], point, mapping) for name in ("foreground", "background")]
    return uv, 0.99 * (slow(states["alpha"], point, alpha)[0] + 1) / 2 + 0.001


def slow_colour(states, uv, layer, atlas=4):
    place = [0.5 * v + (0.5, -0.5)[layer] for v in uv]
    return [(c + 1) / 2 for c in slow(states["atlas"], place, atlas, (4, 7))]


def config_of(size, most=70, **changes):
    """config.json for `random_states`."""
    networks = {
        "number_of_layers_mapping1": 6, "number_of_layers_mapping2": 4, "number_of_layers_alpha": 5,
        "number_of_layers_atlas": 8, "positional_encoding_num_alpha": 5, "positional_encoding_num_atlas": 4,
        "use_positional_encoding_mapping1": False, "number_of_positional_encoding_mapping1": 4,
        "use_positional_encoding_mapping2": False, "number_of_positional_encoding_mapping2": 2,
    }  # fmt: skip
    networks |= {f"number_of_channels_{name}": 16 for name in ("mapping1", "mapping2", "alpha", "atlas")}
    return networks | {"resx": size[1], "resy": size[0], "maximum_number_of_frames": most} | changes


def save(folder, states, config):
    """Both files, with all that a training writes: Adam's state too."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode(False), torch.enable_grad():
        optimizer = torch.optim.Adam([{"params": [torch.ones(2, requires_grad=True)]}], lr=1e-4)
        optimizer.param_groups[0]["params"][0].sum().backward()
        optimizer.step()
    saved = {KEYS[name]: state for name, state in states.items()}
    saved |= {"iteration": 3, "optimizer_all_state_dict": optimizer.state_dict()}
    torch.save(saved, folder / "checkpoint")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
