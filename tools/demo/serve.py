"""ComfyUI in the browser, with this pack and the demo's clip, in a folder of its own in your cache."""

import argparse

from ..server.comfy_server import CACHE, Server
from .clip import bunny, random_checkpoint, stage
from .options import existing
from .template_files import CLIP


def main() -> None:
    parser = argparse.ArgumentParser(prog="python dev.py serve", description=__doc__)
    parser.add_argument("--checkpoint", type=existing, help="an SD1.x checkpoint of yours; none: random weights")
    parser.add_argument("--port", type=int, default=8188)
    options = parser.parse_args()
    server = Server(CACHE / "serve", options.port)
    checkpoint = options.checkpoint or random_checkpoint()
    stage(server, (checkpoint.name, CLIP), checkpoint, bunny(), 8)
    print(f"Starting ComfyUI; its files are in {server.folder}", flush=True)
    with server:
        print(f"Open {server.url} and choose Workflow > Browse Templates > ComfyUI-EI2.", flush=True)
        print("The template 00_demo_model needs no checkpoint: open it and press Run.", flush=True)
        print(f"In 01_first_edit choose {checkpoint.name} in Load Checkpoint. Stop with Ctrl+C.", flush=True)
        server.process.wait()


if __name__ == "__main__":
    main()
