"""The real host in this process, on the CPU, with a miniature SD1.x-shaped UNet (1 M numbers)."""

import pytest
import torch

from tools.server.in_process import pack

from .. import loaded_host

if not loaded_host.load():
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def output_of_the_tests(tmp_path_factory):
    """Nothing is left in the host's own output folder, and nothing found there."""
    import folder_paths

    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path_factory.mktemp("output")))
    yield
    folder_paths.set_output_directory(before)


@pytest.fixture
def folders(tmp_path):
    """The host's models and output folders, in a temporary place."""
    import folder_paths

    before = folder_paths.models_dir, folder_paths.get_output_directory(), dict(folder_paths.folder_names_and_paths)
    folder_paths.models_dir = str(tmp_path / "models")
    folder_paths.set_output_directory(str(tmp_path / "output"))
    folder_paths.folder_names_and_paths.pop("ei2", None)
    pack("nodes.host.files.weights_folder").register_folders()
    yield tmp_path
    folder_paths.models_dir = before[0]
    folder_paths.set_output_directory(before[1])
    folder_paths.folder_names_and_paths.clear()
    folder_paths.folder_names_and_paths.update(before[2])


@pytest.fixture
def host_before():
    """The host before the pack was imported: see host_as_it_was.py."""
    return loaded_host.before


@pytest.fixture(autouse=True)
def host_mode():
    """Nodes run under inference mode, as the server runs them."""
    with torch.inference_mode():
        yield
