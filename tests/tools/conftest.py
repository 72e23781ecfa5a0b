"""The demo and real runs over many clips need the server of tests/conftest.py; the rest does without."""

import os

if not os.environ.get("COMFYUI_PATH"):
    collect_ignore = ["test_demo.py", "test_many_clips.py"]  # `python dev.py test` finds or installs a host
