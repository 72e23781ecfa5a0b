"""What the tests of several folders share."""

import pytest

pytest_plugins = ["tests.not_run"]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real ComfyUI server with the pack, files of random weights and short clips."""
    from tools.demo import clip, template_files
    from tools.server.comfy_server import Server

    with Server(tmp_path_factory.mktemp("comfyui")) as running:
        clip.stage(running, clip.DEMO_NAMES, clip.random_checkpoint(), clip.bunny(), 3)
        template_files.stage(running, 18)  # more than fit into one window
        yield running
