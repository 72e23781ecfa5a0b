"""ComfyUI's own editor in headless Chromium: open it, load a workflow, run it by clicking, look at it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RUN_BUTTON = 'button[data-testid="queue-button"], [data-testid="queue-button"] button'  # newer editors, older ones
CANCEL_BUTTON = "Cancel current run"
TEMPLATES_BUTTON = "Templates"
LIBRARY_BUTTON = "Node Library (n)"
HELP_BUTTON, HELP_PAGE = "info-button", ".markdown-content"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # words in nodes however small
}


def chromium() -> str | None:
    """Path of the browser on this machine, if there is one."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def editor(server, width: int = 1900, height: int = 1200) -> Iterator[Page]:
    """A page with the editor of this server, ready for use."""
    server.request("/settings", SETTINGS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(server.url)
        page.wait_for_function("window.app?.graph && window.app.vueAppReady", timeout=120_000)
        yield page
        browser.close()


def load(page: Page, workflow: dict) -> None:
    """Open a workflow, as dropping its file on the editor does."""
    page.evaluate("app.extensionManager.focusMode = false")  # a picture leaves it on, and it hides the Run button
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_function("n => app.graph._nodes.length === n", arg=len(workflow["nodes"]))
    page.wait_for_timeout(1000)  # the offer to download a missing checkpoint opens a moment later
    page.keyboard.press("Escape")


def use_nodes_2(page: Page, on: bool) -> None:
    """Draw nodes in HTML, which ComfyUI calls Nodes 2.0, or on a canvas."""
    page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", on)
    page.wait_for_timeout(500)


def run(page: Page, changes: dict[str, dict], seconds: float = 600) -> list[str]:
    """Set widgets ({"node type": {"widget": value}}), click Run, wait for the end. Returns [] or [what went wrong]."""
    start(page, changes)
    return end(page, seconds)


def start(page: Page, changes: dict[str, dict]) -> None:
    """Set widgets and click Run."""
    page.evaluate(SET_WIDGETS, changes)
    page.locator(RUN_BUTTON).first.click()


def end(page: Page, seconds: float = 600) -> list[str]:
    """Wait for the end of what was started."""
    page.wait_for_function("window.ended", timeout=seconds * 1000)
    return page.evaluate("window.ended")


SET_WIDGETS = """changes => {
  for (const node of app.graph._nodes.flatMap(n => [n, ...(n.subgraph?.nodes ?? [])]))
    for (const [name, value] of Object.entries(changes[node.type] ?? {}))
      node.widgets.find(w => w.name === name).value = value;
  window.ended = null;
  const faults = errors => Object.values(errors ?? {})
    .flatMap(node => node.errors.map(error => `${node.class_type}: ${error.details}`));
  const post = app.api.queuePrompt;
  app.api.queuePrompt = async (...prompt) => {
    app.api.queuePrompt = post;
    try {
      const answer = await post.apply(app.api, prompt);
      window.refused = faults(answer.node_errors);  // of some outputs; the others run
      return answer;
    } catch (refusal) {  // what the editor draws its red nodes from
      window.ended = faults(refusal.response.node_errors);
      throw refusal;
    }
  };
  app.api.addEventListener("execution_success", () => window.ended = window.refused);
  app.api.addEventListener("execution_error", event => window.ended = [event.detail.exception_message]);
  app.api.addEventListener("execution_interrupted", () => window.ended = ["interrupted"]);
}"""


def choose(page: Page, group: str, entry: str) -> None:
    """Right-click the title of a group and choose an entry of its menu."""
    page.mouse.click(*page.evaluate(TITLE_OF, group), button="right")
    page.locator(".litemenu-entry", has_text=entry).click()


TITLE_OF = """title => {
  const [x, y] = app.graph._groups.find(g => g.title === title).pos;
  const canvas = app.canvas.canvas.getBoundingClientRect();
  const middle = [canvas.width / 2, canvas.height / 2];
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [middle[0] - x, middle[1] - y];
  app.canvas.draw(true, true);
  return [canvas.x + middle[0] + 50, canvas.y + middle[1] + 15];
}"""


def boxes(page: Page) -> list[tuple]:
    """(title, left, top, width, height) of every node as drawn, on the canvas or in HTML, in units of the graph."""
    return page.evaluate(BOXES)


BOXES = """() => {
  const {scale, offset} = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect(), found = {};
  for (const n of app.graph._nodes) found[n.id] = [n.title, ...n.boundingRect];
  for (const drawn of document.querySelectorAll("[data-node-id]")) {
    const {x, y, width, height} = drawn.getBoundingClientRect(), id = drawn.dataset.nodeId;
    const left = (x - canvas.x) / scale - offset[0], top = (y - canvas.y) / scale - offset[1];
    if (id in found) found[id] = [found[id][0], left, top, width / scale, height / scale];
  }
  return Object.values(found);
}"""


def overlaps(page: Page) -> list[tuple[str, str]]:
    """The titles of nodes that lie over each other, by more than a pixel."""
    found, seen = [], []
    for name, x, y, w, h in boxes(page):
        for other, x2, y2, w2, h2 in seen:
            if min(x + w, x2 + w2) - max(x, x2) > 1 and min(y + h, y2 + h2) - max(y, y2) > 1:
                found.append((other, name))
        seen.append((name, x, y, w, h))
    return found


def picture(page: Page, path: Path, node_type: str | None = None) -> None:
    """The graph alone, as large as the window allows; or the first node of a type, in its real size or smaller."""
    page.evaluate("app.extensionManager.focusMode = true")
    page.wait_for_timeout(500)
    width, height = page.evaluate(FIT, node_type)
    page.wait_for_timeout(1500)  # drawing is asynchronous, and nothing tells when it is done
    page.screenshot(path=str(path), clip={"x": 0, "y": 0, "width": width, "height": height})


FIT = """type => {
  const all = [...app.graph._nodes, ...app.graph._groups], one = app.graph._nodes.find(n => n.type === type);
  const boxes = (type ? [one] : all).map(n => n.boundingRect ?? n.getBounding());
  const left = Math.min(...boxes.map(b => b[0])) - 20, top = Math.min(...boxes.map(b => b[1])) - 20;
  const right = Math.max(...boxes.map(b => b[0] + b[2])) + 20, bottom = Math.max(...boxes.map(b => b[1] + b[3])) + 20;
  const canvas = app.canvas.canvas.getBoundingClientRect();
  const most = type ? 1 : Infinity;
  const scale = Math.min(most, canvas.width / (right - left), canvas.height / (bottom - top));
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [-left, -top];
  app.canvas.setDirty(true, true);
  return [scale * (right - left), scale * (bottom - top)];
}"""


def open_template(page: Page, pack: str, name: str) -> None:
    """By the template browser: its button, the pack's list, the template's card."""
    page.get_by_role("button", name=TEMPLATES_BUTTON, exact=True).click()
    browser = page.get_by_role("dialog")
    browser.get_by_text(pack, exact=True).first.click()
    browser.get_by_test_id(f"template-workflow-{name}").click()
    browser.wait_for(state="hidden")


def drop(page: Page, path: Path) -> None:
    """Drag a workflow's file onto the canvas."""
    dragged = page.evaluate_handle(DRAGGED, [path.read_text(encoding="utf-8"), path.name])
    page.dispatch_event("#graph-canvas", "drop", {"dataTransfer": dragged})


DRAGGED = """([text, name]) => {
  const dragged = new DataTransfer();
  dragged.items.add(new File([text], name, {type: "application/json"}));
  return dragged;
}"""


def faulty(page: Page) -> list[str]:
    """The types of nodes that this ComfyUI does not know, or that are red, in subgraphs too."""
    every = "app.graph._nodes.flatMap(n => [n, ...(n.subgraph?.nodes ?? [])])"
    fault = "n => n.has_errors || !LiteGraph.registered_node_types[n.type]"
    return page.evaluate(f"{every}.filter({fault}).map(n => n.type)")


def cancel(page: Page) -> list[str]:
    """Click the button that stops what runs, and wait for its end."""
    page.get_by_role("button", name=CANCEL_BUTTON).click()
    return end(page)


def show(page: Page, node_type: str) -> dict:
    """Bring the first node of a type into the middle of the window in its real size; where it lies there."""
    return page.evaluate(SHOW, node_type)


SHOW = """type => {
  const node = app.graph._nodes.find(n => n.type === type);
  const [x, y, width, height] = node.boundingRect ?? node.getBounding();
  const canvas = app.canvas.canvas.getBoundingClientRect();
  const left = (canvas.width - width) / 2, top = (canvas.height - height) / 2;
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [left - x, top - y];
  app.canvas.draw(true, true);
  return {x: canvas.x + left, y: canvas.y + top, width, height};
}"""


def help_page(page: Page, node_type: str) -> Locator:
    """Select the first node of a type by clicking its title, and press the button that explains it."""
    box = show(page, node_type)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 12)
    page.get_by_test_id(HELP_BUTTON).click()
    return page.locator(HELP_PAGE, has=page.locator("h1"))


def put_in(page: Page, name: str) -> None:
    """Search the node library for a name, click the entry, and click where the node shall be."""
    page.get_by_role("button", name=LIBRARY_BUTTON).click()
    page.get_by_role("textbox", name="Search").or_(page.get_by_placeholder("Search")).first.fill(name)
    page.get_by_text(name, exact=True).first.click()
    page.mouse.click(1200, 200)  # newer editors hang the node on the mouse until then
    page.wait_for_function("app.graph._nodes.length")
    page.get_by_role("button", name=LIBRARY_BUTTON).click()
