"""Memory of a server over many runs of the demo's template: does it grow?

    python dev.py bench soak [--runs 50]

Every run tunes (2 steps, another seed each time), inverts and samples (4 steps) on one server. A row a fifth of them:
the memory of the server's process when the run has ended. A server that keeps something of every run grows steadily.
"""

import argparse
import tempfile
from pathlib import Path

import psutil

from tools.demo import scene
from tools.server.api_prompt import find
from tools.server.comfy_server import Server

from ..common import report


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=50)
    values = report.parse(options)
    sizes = []
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        process = psutil.Process(server.process.pid)
        for seed in range(values.runs):
            server.run(prompt(server, seed))
            sizes.append(process.memory_info().rss / 2**20)
            print(".", end="", flush=True)
    every = max(1, values.runs // 5)
    rows = [{"runs": i, "MiB": sizes[i - 1], "/ first fifth": sizes[i - 1] / sizes[every - 1]}
            for i in range(every, values.runs + 1, every)]  # fmt: skip
    growth = (sizes[-1] - sizes[every - 1]) / max(1, values.runs - every)
    report.publish(rows, values, (f"{growth:.2f} MiB more with every run after the first fifth",))


def prompt(server: Server, seed: int) -> dict:
    template = scene.load_template(server)
    find(template, "EI2DemoClip")["frames"] = 4
    find(template, "EI2OneShotTune").update({"steps": 2, "seed": seed})
    find(template, "EI2InvertVideo")["steps"] = 4
    return template


if __name__ == "__main__":
    main()
