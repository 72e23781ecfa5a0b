"""The real host in this process, on the CPU: what conftest.py needs where tests use it without a server."""

import os

import torch

from tools import ROOT
from tools.server import in_process

from . import host_as_it_was

before: dict = {}  # the host before the pack was imported


def load() -> bool:
    """Load host and pack. False: there is no host; `python dev.py test` finds or installs one."""
    if not os.environ.get("COMFYUI_PATH"):
        return False
    in_process.load_host(cpu=True)
    if not before:
        host_as_it_was.import_what_the_pack_imports(ROOT)
        before.update(host_as_it_was.look())
    in_process.load_pack()
    torch.set_num_threads(1)  # the models here are tiny: more threads only wait for each other
    return True
