"""What the server tells while a prompt runs, as a progress bar a stage and as seconds."""

import time

from tqdm import tqdm

STAGES = {"EI2OneShotTune": "tune", "EI2InvertVideo": "invert", "EI2Sampler": "sample"}


class Watcher:
    """`with Watcher(prompt, seconds) as watcher`: hand it to Server.run; it adds up the seconds of every stage."""

    def __init__(self, prompt: dict, seconds: dict[str, float]):
        self.prompt, self.seconds = prompt, seconds
        self.stage, self.bar, self.began = None, None, 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __call__(self, kind: str, data: dict) -> None:
        if kind == "executing":
            self.close()
            node = self.prompt.get(str(data.get("node")), {})
            self.stage, self.began = STAGES.get(node.get("class_type")), time.monotonic()
        elif kind == "progress" and self.stage:
            if self.bar is None:
                self.bar = tqdm(total=data["max"], desc=f"{self.stage:>7}", mininterval=0.5)
            self.bar.update(data["value"] - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.stage:
            self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + time.monotonic() - self.began
        self.stage = self.bar = None
