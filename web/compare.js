// What 'EI² Compare' shows beside its video: the contact sheet, and in wipe mode the clips over each other with lines
// to drag. One video holds all clips side by side, so that they cannot run apart; a canvas cuts the picture from it.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const NODE = "EI2Compare", NAME = "ei2_comparison", GAP = 4;

app.registerExtension({
  name: "EI2.Compare",
  nodeCreated(node) {
    if (node.comfyClass === NODE) node.previewMediaType = "video";  // or the first Nodes 2.0 took it for a picture
  },
  loadedGraphNode(node) {
    if (node.comfyClass === NODE) setTimeout(() => recall(node), 500);
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return;
    const { onExecuted, onRemoved } = nodeType.prototype;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.apply(this, arguments);
      show(this, output);
    };
    nodeType.prototype.onRemoved = function () {
      this.widgets?.find(w => w.name === NAME)?.stop();
      onRemoved?.apply(this, arguments);
    };
  },
});

// After a change of tabs the editor draws the node anew, and puts back what it gave a moment later.
function recall(node) {
  const output = app.nodeOutputs?.[node.id];
  if (output?.sheet && node.graph) show(node, output);
}

function show(node, { sheet, strip, labels }) {
  const widget = node.widgets.find(w => w.name === NAME) ?? add(node);
  widget.stop();
  const slider = strip && wipe(address(strip[0]), labels, () => fit(node));
  widget.stop = slider?.stop ?? (() => {});
  const picture = Object.assign(new Image(), { src: address(sheet[0]), onload: () => fit(node) });
  picture.draggable = false;
  widget.element.replaceChildren(...(slider ? [slider.canvas] : []), picture);
  for (const child of widget.element.children) child.style.width = "100%";
}

function add(node) {
  const element = document.createElement("div");
  Object.assign(element.style, { display: "flex", flexDirection: "column", gap: `${GAP}px` });
  const widget = node.addDOMWidget(NAME, NAME, element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => height(element, node.size[0]),
  });
  return Object.assign(widget, { serialize: false, stop() {} });
}

// Of all children, as high as their own shape asks for in a node so wide.
function height(element, width) {
  const inside = width - 20;
  const shares = [...element.children].map(c => (c.naturalHeight ?? c.height) / (c.naturalWidth ?? c.width) || 0);
  return shares.reduce((sum, share) => sum + share * inside + GAP, 20);
}

function fit(node) {
  const [width, least] = [node.size[0], node.computeSize()[1]];
  if (node.size[1] < least) node.setSize([width, least]);
  node.setDirtyCanvas?.(true, true);
}

const address = ({ filename, subfolder, type }) =>
  api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);

// A canvas on which clip k is seen between line k - 1 and line k.
function wipe(src, labels, ready) {
  const count = labels.length, lines = labels.slice(1).map((_, k) => (k + 1) / count);
  const canvas = document.createElement("canvas");
  const video = Object.assign(document.createElement("video"), { src, loop: true, muted: true, playsInline: true });
  Object.assign(canvas.style, { cursor: "ew-resize", touchAction: "none" });
  const redraw = () => draw(canvas, video, labels, lines);
  let held = null, stopped = false;

  video.onloadedmetadata = () => {
    [canvas.width, canvas.height] = [Math.floor(video.videoWidth / count), video.videoHeight];
    ready();
  };
  video.onloadeddata = () => {
    video.play().catch(() => {});
    follow();
  };
  function follow() {
    if (stopped) return;
    redraw();
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(follow);
    else requestAnimationFrame(follow);
  }

  const share = event => {
    const box = canvas.getBoundingClientRect();
    return (event.clientX - box.left) / box.width;
  };
  const move = event => {
    const [least, most] = [lines[held - 1] ?? 0, lines[held + 1] ?? 1];
    lines[held] = Math.min(most, Math.max(least, share(event)));
    redraw();
  };
  canvas.onpointerdown = event => {
    event.stopPropagation();
    canvas.setPointerCapture(event.pointerId);
    const x = share(event), far = lines.map(line => Math.abs(line - x));
    held = far.indexOf(Math.min(...far));
    move(event);
  };
  canvas.onpointermove = event => held !== null && move(event);
  canvas.onpointerup = canvas.onpointercancel = () => (held = null);
  return {
    canvas,
    stop() {
      stopped = true;
      video.pause();
      video.removeAttribute("src");
    },
  };
}

function draw(canvas, video, labels, lines) {
  const { width, height } = canvas, pen = canvas.getContext("2d");
  const edges = [0, ...lines, 1].map(line => Math.round(line * width));
  const size = Math.max(14, width / 28);
  pen.font = `${size}px sans-serif`;
  labels.forEach((label, k) => {
    const [left, across] = [edges[k], edges[k + 1] - edges[k]];
    if (across <= 0) return;
    pen.save();
    pen.beginPath();
    pen.rect(left, 0, across, height);
    pen.clip();
    pen.drawImage(video, k * width, 0, width, height, 0, 0, width, height);
    const text = label.split("\n")[0], words = pen.measureText(text).width;
    pen.fillStyle = "rgba(255, 255, 255, 0.8)";
    pen.fillRect(left, 0, words + size, 1.6 * size);
    pen.fillStyle = "black";
    pen.fillText(text, left + size / 2, 1.15 * size);
    pen.restore();
  });
  pen.fillStyle = "white";
  for (const edge of edges.slice(1, -1)) pen.fillRect(edge - 1, 0, 2, height);
}
