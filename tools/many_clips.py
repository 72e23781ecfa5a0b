"""Edit a folder of clips with several ComfyUI servers: tools/many, from any folder and with any Python.

`python dev.py many` is the same, in an environment with all of PyTorch.
"""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the folder that holds the package `tools`, not this one
    command = importlib.import_module("tools.many.command")
    sys.exit(command.main(prog="python tools/many_clips.py"))
