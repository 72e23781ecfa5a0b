"""`python dev.py test --packs FOLDER`: which packs it finds, what it runs for them, and the table it makes."""

import os

import pytest

from ..packs import __main__ as program
from ..packs import found, table

NAMES = {
    "ComfyUI-GGUF": "gguf",
    "comfyui-gguf": "gguf",  # as the registry installs it
    "ComfyUI-GGUF-main": "gguf",  # as GitHub's archive is called
    "ComfyUI-TiledDiffusion": "tileddiffusion",
    "ComfyUI-Advanced-ControlNet": "advanced_controlnet",
    "ComfyUI-AnimateDiff-Evolved": "animatediff_evolved",
    "ComfyUI-VideoHelperSuite": "videohelpersuite",
    "ComfyUI_IPAdapter_plus": "ipadapter_plus",
    "unheard-of": None,
}


def pack(folder, name, code="NODE_CLASS_MAPPINGS = {}", project=None):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code, encoding="utf-8")
    if project is not None:
        (folder / name / "pyproject.toml").write_text(project, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_cases_of_a_pack(tmp_path, name):
    (one,) = found.packs(pack(tmp_path, name))
    assert [path.stem for path in one.cases] == ["any", *filter(None, [NAMES[name]])]


def test_every_file_of_cases_has_its_pack():
    files = {path.stem for path in found.CASES.glob("*.py")}
    assert files == {"__init__", "any", *filter(None, NAMES.values())}


@pytest.mark.parametrize(
    ("project", "version"),
    [
        ('[project]\nname = "a"\nversion = "1.2.3" # of today\n', "1.2.3"),
        ("[project]\nversion='2'\n[tool.x]\nversion='3'\n", "2"),
        ("[tool.x]\nversion='3'\n", "none given"),
        (None, "none given"),
    ],
)
def test_version_of_a_pack(tmp_path, project, version):
    (one,) = found.packs(pack(tmp_path, "a", project=project))
    assert one.version == version


def test_what_is_no_pack_is_left_out(tmp_path):
    pack(tmp_path, "a")
    (tmp_path / "notes").mkdir()
    (tmp_path / "example.py").touch()
    pack(tmp_path, "ours")
    (tmp_path / "ours" / "ei2_modules").mkdir()
    assert [one.name for one in found.packs(tmp_path)] == ["a"]


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_packs(tmp_path, name, capsys):
    (tmp_path / "empty").mkdir()
    assert program.main([str(tmp_path / name)]) == 2
    assert str(tmp_path / name) in capsys.readouterr().err


def test_a_row_is_one_line():
    text = table.page([("a", "1", "0.3.75", "b | c", "failed: d\ne")], "Python")
    assert text.endswith("| a | 1 | 0.3.75 | b \\| c | failed: d e |\n")


def test_rows_of_another_run_stay():
    first = table.page([("b", "1", "0.3.75", "case", "failed"), ("b", "1", "0.3.75", "gone", "failed")], "Python")
    second = table.page([("a", "1", "0.33.0", "case", "holds"), ("b", "1", "0.33.0", "case", "holds")], "Python", first)
    third = table.page([("b", "1", "0.3.75", "case", "holds")], "Python", second)
    assert [line.split(" | ")[::2] for line in third.splitlines()[-3:]] == [
        ["| a", "0.33.0", "holds |"],
        ["| b", "0.3.75", "holds |"],
        ["| b", "0.33.0", "holds |"],
    ]
    assert third.count("| pack |") == 1 and "gone" not in third


@pytest.mark.skipif(not os.environ.get("COMFYUI_PATH"), reason="no host")
def test_the_cases_are_run_beside_the_pack(tmp_path, capfd):
    """One that changes nothing, one that changes what we compute with, and one that cannot be imported."""
    pack(tmp_path, "harmless")
    pack(tmp_path, "meddles", "import torch\nNODE_CLASS_MAPPINGS = {}\nsoftmax = torch.nn.functional.mse_loss\n"
         "torch.nn.functional.mse_loss = lambda *a, **k: 2 * softmax(*a, **k)")  # fmt: skip
    pack(tmp_path, "lacks", "import a_module_that_nobody_has")
    assert program.main([str(tmp_path), "--out", str(tmp_path / "packs.md")]) == 1
    rows = [line.split(" | ") for line in (tmp_path / "packs.md").read_text(encoding="utf-8").splitlines()[-3:]]
    results = {row[0].strip("| "): row[-1].strip(" |") for row in rows}
    assert results["harmless"] == "holds"
    assert results["lacks"].startswith("not run: ComfyUI does not load the pack: ModuleNotFoundError")
    assert results["meddles"].startswith("failed: ") and "losses" in results["meddles"]
    assert results["lacks"] in capfd.readouterr().out
