"""Edit a folder of clips with several ComfyUI servers, on this machine or on others.

The folder holds clips and a table jobs.csv (clip, caption, prompt). Each job goes to a server that is free, over its
HTTP API; the result comes back as a folder of its own. A server that dies gives its job back. The same command run
again does what is missing.
"""

import argparse
import signal
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from .. import ROOT

try:
    import filelock

    from ..server.client import Client, Refused, Unreachable
    from . import jobs, prompts, results
    from .job_queue import JobQueue
    from .report import Report
    from .worker import Run, Worker
except ModuleNotFoundError as error:
    sys.exit(f"{error}. Install what this needs: python -m pip install persist-queue requests filelock")

WORKFLOW = "workflow.json"  # in the folder; without it, the template
TEMPLATE = ROOT / "workflows" / "01_first_edit.json"
PATIENCE = 120  # seconds: ComfyUI starts in less


def main(arguments: list[str] | None = None, prog: str = "python dev.py many") -> int:
    """0: every result is there. 1: some failed or are left. 2: nothing was started. 130: stopped."""
    options = parse(arguments, prog)
    try:
        return show_example(options.folder) if options.example else locked(options)
    except ValueError as error:
        print(f"Nothing was started. {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def show_example(folder: Path) -> int:
    try:
        from . import example  # with PyTorch, which a run does without
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}. The example is rendered: python dev.py many FOLDER --example") from error
    print(example.write(folder))
    return 0


def parse(arguments: list[str] | None, prog: str) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=layout)
    parser.add_argument("folder", type=Path, help="with the clips, jobs.csv and, if you like, workflow.json")
    parser.add_argument("--server", action="append", type=address, help="http://host:port; again for every server")
    parser.add_argument("--workflow", type=Path, help="default: workflow.json of the folder, else 01_first_edit")
    parser.add_argument("--out", type=Path, help="folder of the results; default: results in the folder")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds that a server may be silent (120)")
    parser.add_argument("--example", action="store_true", help="only write an example into a new folder")
    options = parser.parse_args(arguments)
    options.server = list(dict.fromkeys(options.server or [address("127.0.0.1:8188")]))
    options.out = options.out or options.folder / "results"
    own = options.folder / WORKFLOW
    options.workflow = options.workflow or (own if own.is_file() else TEMPLATE)
    return options


def address(text: str) -> str:
    """A server's address in one spelling."""
    url = (text if "://" in text else f"http://{text}").rstrip("/")
    try:
        fine = urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname and urlsplit(url).port != 0
    except ValueError:
        fine = False
    if not fine:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address such as http://127.0.0.1:8188")
    return url


def locked(options: argparse.Namespace) -> int:
    """One run at a time into one folder: two would do everything twice."""
    table, workflow = jobs.read(options.folder), prompts.load(options.workflow)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(options.out / ".lock", timeout=0):
            return go(options, table, workflow)
    except filelock.Timeout as error:
        raise ValueError(f"Another run works on {options.out}: wait for its end, or choose another --out.") from error


def go(options: argparse.Namespace, table: list[jobs.Job], workflow: dict) -> int:
    cards = {job.name: {**job.card(), "workflow": prompts.digest(workflow)} for job in table}
    todo = results.missing(cards, options.out)
    print(f"{len(cards)} jobs, {len(cards) - len(todo)} of them done already. Results: {options.out}", flush=True)
    if not todo:
        return 0
    clients = {url: Client(url) for url in options.server}
    queue = JobQueue(options.out / ".queue", {name: key(cards[name]) for name in todo}, answering(clients))
    run = Run(
        jobs={job.name: job for job in table},
        cards=cards,
        workflow=workflow,
        out=options.out,
        queue=queue,
        report=Report(len(todo)),
        patience=options.patience,
        stop=threading.Event(),
    )
    return work(run, [Worker(client, run) for client in clients.values()])


def key(card: dict) -> str:
    return repr(sorted(card.items()))


def answering(clients: dict[str, Client]) -> set[str]:
    """Addresses of the servers that answer now. Raises ValueError when none does."""
    silent = {}
    for url, client in clients.items():
        try:
            client.check()
        except (Unreachable, Refused) as error:
            silent[url] = str(error)
    if len(silent) == len(clients):
        told = "\n".join(f"  {url}: {reason}" for url, reason in silent.items())
        raise ValueError(f"No server answers:\n{told}\nStart ComfyUI there (with --listen for other machines).")
    return clients.keys() - silent.keys()


def work(run: Run, workers: list[Worker]) -> int:
    """All workers, to their end or to Ctrl+C."""
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.default_int_handler)
    try:
        for worker in workers:
            worker.start()
        while run.queue.left and any(worker.is_alive() for worker in workers):
            time.sleep(0.1)  # not until the last has ended: one may be asking a dead server
    except KeyboardInterrupt:
        print("\nStopping: what runs on the servers is cancelled.", flush=True)
        run.stop.set()
        for worker in workers:
            worker.join(10)
        print(run.report.summary(), flush=True)
        return 130
    print(run.report.summary(), flush=True)
    return 1 if run.report.failed or run.report.left else 0
