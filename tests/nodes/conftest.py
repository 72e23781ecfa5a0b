"""The real host in this process, on the CPU, with a miniature SD1.x-shaped UNet (1 M numbers)."""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

if os.environ.get("COMFYUI_PATH"):
    sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tools"), str(HERE.parents[1] / "benchmarks")]
    import host_as_it_was
    import in_process

    in_process.load_host(cpu=True)
    host_as_it_was.import_what_the_pack_imports(in_process.ROOT)
    HOST_BEFORE = host_as_it_was.look()
    in_process.load_pack()
    import torch

    torch.set_num_threads(1)  # the models here are tiny: more threads only wait for each other
else:
    collect_ignore_glob = ["test_*.py"]  # `python dev.py test` finds or installs a host


@pytest.fixture
def folders(tmp_path):
    """The host's models and output folders, in a temporary place."""
    import folder_paths

    before = folder_paths.models_dir, folder_paths.get_output_directory(), dict(folder_paths.folder_names_and_paths)
    folder_paths.models_dir = str(tmp_path / "models")
    folder_paths.set_output_directory(str(tmp_path / "output"))
    folder_paths.folder_names_and_paths.pop("ei2", None)
    in_process.pack("nodes.host.files.weights_folder").register_folders()
    yield tmp_path
    folder_paths.models_dir = before[0]
    folder_paths.set_output_directory(before[1])
    folder_paths.folder_names_and_paths.clear()
    folder_paths.folder_names_and_paths.update(before[2])


@pytest.fixture
def host_before():
    """The host before the pack was imported: see host_as_it_was.py."""
    return HOST_BEFORE


@pytest.fixture(autouse=True)
def host_mode():
    """Nodes run under inference mode, as the server runs them."""
    with torch.inference_mode():
        yield
