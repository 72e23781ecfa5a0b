"""What a node says of the atlas that it made."""

import logging

from ....ei2_modules.atlas.gates import Gate
from ..progress import show_text


def told(about: str, gates: list[Gate], psnr: float, before: str = "") -> str:
    """The report: a line about the work, and one for each figure. What is not fine is logged, the sum of it shown.

    before: what the node shows says this first.
    """
    bad = [gate for gate in gates if not gate.fine]
    for gate in bad:
        logging.warning("EI²: %s", gate.line())
    show_text(f"{before}{psnr:.1f} dB; " + (f"look at {len(bad)} of {len(gates)} figures" if bad else "all fine"))
    return "\n".join([about, *(gate.line() for gate in gates)])
