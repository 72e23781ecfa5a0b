"""Does the miniature model draw what it is told? Guidance 5, 50 DDIM steps, captions it was not trained on.

    python dev.py bench demo_model [--captions 200] [--pictures folder]

Scored without learning: colours by the nearest of eight, shape by overlap with rendered shapes. The first rows say
how often the scorers are right on rendered scenes, as they are and after the autoencoder.
"""

import argparse
from pathlib import Path
from random import Random

import torch

from ei2_modules.demo import scenes, weights
from tools.demo import video_files
from tools.server.in_process import host, pack

from ..common import report
from ..quality import scorers

host_nodes = host("nodes")
demo_model, side_by_side = pack("nodes.host.demo_model"), pack("nodes.host.side_by_side")

GUIDANCE, STEPS, BATCH = 5.0, 50, 20
SEED = 987
LATENT = (demo_model.autoencoder.CHANNELS, *[scenes.SIZE // demo_model.autoencoder.FACTOR] * 2)


def unseen(count: int, new_combination: bool) -> tuple[list, list[str]]:
    """Scenes of one thing and captions. Training saw none of the captions, or not even the combination of shape,
    colour and background."""
    training = weights.load().training
    seen = set(scenes.scenes_to_train_on(training["seed"], training["scenes"])[1])
    random, found = Random(SEED + new_combination), []
    while len(found) < count:
        scene, words = scenes.random_scene(random)
        alone = len(scene.things) == 1 and scene.bar is None
        if alone and words not in seen and scenes.held_out(scene) == new_combination:
            found.append((scene, words))
    return [scene for scene, _ in found], [words for _, words in found]


def draw(captions: list[str], model, clip, vae, guidance: float) -> torch.Tensor:
    """Pictures (n, 64, 64, 3), by the host's own nodes."""
    encode = lambda text: clip.encode_from_tokens_scheduled(clip.tokenize(text))  # noqa: E731
    pictures = []
    for start in range(0, len(captions), BATCH):
        part = captions[start : start + BATCH]
        told = [[torch.cat([encode(words)[0][0] for words in part]), {}]]
        empty = {"samples": torch.zeros(len(part), *LATENT)}
        sampled = host_nodes.common_ksampler(
            model, SEED + start, STEPS, guidance, "ddim", "ddim_uniform", told, encode(""), empty
        )[0]
        pictures.append(vae.decode(sampled["samples"]))
        print(".", end="", flush=True)
    return torch.cat(pictures).float().clamp(0, 1)


def score(name: str, pictures: torch.Tensor, expected: list) -> dict:
    """A row: percent right of each attribute, and of all four together."""
    right = [scorers.right(scorers.read(p), scene) for p, scene in zip(pictures, expected, strict=True)]
    shares = {a: 100 * sum(r[a] for r in right) / len(right) for a in scorers.ATTRIBUTES}
    return {"pictures": name, "n": len(right), **shares, "all": 100 * sum(all(r.values()) for r in right) / len(right)}


def save(folder: Path, name: str, pictures: torch.Tensor, columns: int = 10) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images = [video_files.picture(p) for p in pictures]
    rows = [images[i : i + columns] for i in range(0, len(images), columns)]
    side_by_side.contact_sheet(rows, cell=128).save(folder / f"{name}.png")


@torch.inference_mode()
def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--captions", type=int, default=200)
    options.add_argument("--guidance", type=float, default=GUIDANCE)
    options.add_argument("--pictures", type=Path, help="write contact sheets into this folder")
    values = report.parse(options)
    model, clip, vae = demo_model.load()
    rows = []
    for name, new in (("unseen caption", False), ("unseen combination", True)):
        expected, captions = unseen(values.captions, new)
        rendered, _ = scenes.render(expected)
        if not new:
            rows.append(score("rendered", rendered, expected))
            rows.append(score("rendered, autoencoder", vae.decode(vae.encode(rendered)), expected))
        pictures = draw(captions, model, clip, vae, values.guidance)
        rows.append(score(name, pictures, expected))
        if values.pictures:
            save(values.pictures, name.replace(" ", "_"), pictures)
            (values.pictures / f"{name.replace(' ', '_')}.txt").write_text("\n".join(captions) + "\n")
    report.publish(rows, values, (f"percent right; guidance {values.guidance:g}, {STEPS} DDIM steps",))


if __name__ == "__main__":
    main()
