"""What is measured of the pack, and how to repeat it: `python dev.py bench` lists the programs, and runs them by name.

quality   edits of rendered clips, against what they should be
atlas     layered atlases of rendered clips, and edits through them
fidelity  does the output resemble what it should: inversion, the borders of windows, the miniature model
speed     time of a step and of its parts
memory    bytes of a step, and of a server over many runs
common    what they share
results   the figures that the documentation quotes
"""

from pathlib import Path

RESULTS = Path(__file__).parent / "results"
