"""The method is tested without ComfyUI: only `ei2_modules` is importable here, as a top-level package."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
