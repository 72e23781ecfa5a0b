"""Programs for users and maintainers, and what the tests and benchmarks share of them. `python dev.py` starts them.

server  ComfyUI: a server of our own, a client of any, its editor, or the host inside this process
demo    the demo, `serve`, and the files they stage: clips, random weights, pictures of the templates
many    a folder of clips over several servers
train   the miniature model from nothing
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
