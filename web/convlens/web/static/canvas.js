// The large picture: a map over the photo, or two of them that meet at a divider, and the value under the pointer.

import { colorTable, cssColor } from "./colormaps.js";
import { byId } from "./dom.js";
import { compose, toHeat } from "./drawing.js";
import { classOf, titleOf } from "./methods.js";
import { currentPhoto, mapByKey, on, state, update } from "./state.js";

/** What is drawn of each side, kept until the map, the photo or the look changes. */
const sides = { left: null, right: null };
/** Where the pointer reads, in pixels of the picture; null until it is set. */
let probe = null;
let isScheduled = false;

/** Return the key of what is on the right of the divider; null where nothing is compared. */
const rightKey = () => (state.comparedKey !== null && state.comparedKey !== state.shownKey ? state.comparedKey : null);

function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    draw();
  });
}

/**
 * Return the picture as it is shown, both sides of the divider, over a photo's pixels.
 * @returns {HTMLCanvasElement}
 */
export function drawPicture(pixels, canvas = document.createElement("canvas")) {
  const shown = mapByKey(state.shownKey);
  const left = sideOf("left", shown, pixels);
  canvas.width = left.width;
  canvas.height = left.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.putImageData(left, 0, 0);
  const key = rightKey();
  if (key) {
    const right = sideOf("right", key === "photo" ? null : mapByKey(key), pixels);
    const edge = Math.round(state.divider * left.width);
    if (right.width === left.width) context.putImageData(right, 0, 0, edge, 0, left.width - edge, left.height);
  }
  return canvas;
}

function sideOf(side, map, pixels) {
  const kept = sides[side];
  if (kept && kept.map === map && kept.pixels === pixels && kept.look === state.look) return kept.picture;
  const picture = map ? compose(map, pixels, state.look) : pixels;
  sides[side] = { map, pixels, look: state.look, picture };
  return picture;
}

function draw() {
  const photo = currentPhoto();
  const shown = mapByKey(state.shownKey);
  const hasPicture = Boolean(photo && (shown || photo.pixels));
  const isWall = state.view === "channels";
  byId("empty").hidden = state.photos.length > 0;
  byId("view").hidden = !hasPicture || isWall;
  if (!hasPicture || isWall) return;
  const canvas = byId("canvas");
  if (shown || photo.pixels) drawPicture(photo.pixels, canvas);
  byId("view").style.setProperty("--ratio", canvas.width / canvas.height);
  byId("picture").classList.toggle("wide", canvas.width > 1.25 * canvas.height);
  canvas.setAttribute("aria-label", shown ? `${titleOf(shown)} ${classOf(shown)} over ${photo.name}` : photo.name);
  showDivider(shown);
  showRange(shown);
  if (probe) showProbe();
}

function showDivider(shown) {
  const key = rightKey();
  byId("divider").hidden = !key;
  for (const side of ["left", "right"]) byId(`chip-${side}`).hidden = !key;
  if (!key) return;
  const at = Math.round(100 * state.divider);
  byId("divider").style.left = `${100 * state.divider}%`;
  byId("divider").setAttribute("aria-valuenow", at);
  byId("divider").setAttribute("aria-valuetext", `${at}% ${captionOf(shown)}, the rest ${captionOf(mapByKey(key))}`);
  byId("chip-left").textContent = captionOf(shown);
  byId("chip-right").textContent = captionOf(mapByKey(key));
}

/** Return a map's method, class and model in one line; of no map, that it is the photo. */
export function captionOf(map) {
  if (!map) return "Photo";
  const parts = [titleOf(map), classOf(map), map.model === state.model?.name ? "" : map.model];
  return parts.filter(Boolean).join(" · ");
}

function showRange(shown) {
  const hasColors = shown && state.look.kind !== "masked";
  byId("range").hidden = !hasColors;
  if (!hasColors) return;
  const heat = toHeat(shown, state.look);
  const isAlone = !currentPhoto().pixels || state.look.kind === "alone";
  const table = colorTable(state.look.colors, heat.isDiverging, isAlone);
  const context = byId("range-colors").getContext("2d");
  for (let x = 0; x < 256; x++) {
    const share = heat.isDiverging ? (x / 255) * 2 - 1 : x / 255;
    context.fillStyle = cssColor(table, share, heat.isDiverging);
    context.fillRect(x, 0, 1, 1);
  }
  byId("range-low").textContent = heat.isDiverging ? `−${short(heat.limit)}` : "0";
  byId("range-high").textContent = short(heat.limit);
}

/** Return a number with three significant digits. */
export function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e4 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  return text.replace("-", "−");
}

function showProbe() {
  const canvas = byId("canvas");
  const shown = mapByKey(state.shownKey);
  if (!shown) return;
  const key = rightKey();
  const isRight = key && probe.x >= state.divider * canvas.width;
  const map = isRight ? mapByKey(key) : shown;
  const place = `x ${probe.x}, y ${probe.y}`;
  if (!map) {
    byId("readout").textContent = `Photo · ${place}`;
    return;
  }
  const column = Math.min(map.width - 1, Math.floor((probe.x / canvas.width) * map.width));
  const row = Math.min(map.height - 1, Math.floor((probe.y / canvas.height) * map.height));
  const value = map.values[row * map.width + column];
  const limit = toHeat(map, state.look).limit;
  const share = limit ? ` (${Math.round((100 * value) / limit)}%)` : "";
  byId("readout").textContent = `${classOf(map) || titleOf(map)} · ${short(value)}${share} · ${place}`;
}

function moveProbe(x, y) {
  const { width, height } = byId("canvas");
  probe = { x: Math.max(0, Math.min(width - 1, Math.floor(x))), y: Math.max(0, Math.min(height - 1, Math.floor(y))) };
  showProbe();
}

/** Mark the place that is read, since the keyboard has no pointer on the screen. */
function showMarker() {
  const { width, height } = byId("canvas");
  byId("marker").hidden = false;
  byId("marker").style.left = `${(100 * (probe.x + 0.5)) / width}%`;
  byId("marker").style.top = `${(100 * (probe.y + 0.5)) / height}%`;
}

function listenForPointer() {
  const canvas = byId("canvas");
  const divide = (event) => {
    const { left, width } = canvas.getBoundingClientRect();
    update({ divider: Math.max(0, Math.min(1, (event.clientX - left) / width)) });
  };
  byId("frame").addEventListener("pointerdown", (event) => {
    if (!rightKey()) return;
    byId("frame").setPointerCapture(event.pointerId);
    divide(event);
  });
  byId("frame").addEventListener("pointermove", (event) => {
    if (byId("frame").hasPointerCapture(event.pointerId)) divide(event);
    const { left, top, width, height } = canvas.getBoundingClientRect();
    byId("readout").setAttribute("aria-live", "off");
    moveProbe(((event.clientX - left) / width) * canvas.width, ((event.clientY - top) / height) * canvas.height);
  });
}

function listenForKeys() {
  byId("canvas").addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!moves[event.key]) return;
    event.preventDefault();
    const canvas = byId("canvas");
    const step = Math.max(1, Math.round(canvas.width / (event.shiftKey ? 8 : 56)));
    const [dx, dy] = moves[event.key];
    const from = probe ?? { x: canvas.width / 2, y: canvas.height / 2 };
    byId("readout").setAttribute("aria-live", "polite");
    moveProbe(from.x + dx * step, from.y + dy * step);
    showMarker();
  });
  byId("canvas").addEventListener("blur", () => (byId("marker").hidden = true));
  byId("divider").addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02, PageDown: -0.1, PageUp: 0.1 };
    const ends = { Home: 0, End: 1 };
    if (!(event.key in moves) && !(event.key in ends)) return;
    event.preventDefault();
    update({ divider: ends[event.key] ?? Math.max(0, Math.min(1, state.divider + moves[event.key])) });
  });
}

/** Set up this part of the page. */
export function start() {
  listenForPointer();
  listenForKeys();
  on(["photoId"], () => {
    probe = null;
    byId("readout").textContent = "Point at the picture to read values.";
  });
  on(["photos", "photoId", "maps", "shownKey", "comparedKey", "divider", "look", "view", "wall", "model"], schedule);
}
