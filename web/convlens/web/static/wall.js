// The wall: the channels of a layer side by side; a click makes one the large picture.

import { byId, element, replaceChildren } from "./dom.js";
import { compose, DEFAULT_LOOK } from "./drawing.js";
import { WALL_CHANNELS, showWall } from "./explorer.js";
import { on, state, update } from "./state.js";

/** Channels are drawn as the SDK's grids of layers: alone, in viridis. */
const WALL_LOOK = { ...DEFAULT_LOOK, kind: "alone", colors: "viridis" };
/** Pixels of the longer side of a channel on the wall. */
const SIDE = 160;

function drawChannel(map) {
  const scale = SIDE / Math.max(map.width, map.height);
  const size = { width: Math.round(map.width * scale), height: Math.round(map.height * scale) };
  const pixels = compose(map, new ImageData(Math.max(1, size.width), Math.max(1, size.height)), WALL_LOOK);
  const canvas = element("canvas", { width: pixels.width, height: pixels.height, "aria-hidden": "true" });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function show() {
  const { wall } = state;
  byId("wall").hidden = state.view !== "channels";
  if (!wall || state.view !== "channels") return;
  const last = Math.min(wall.first + WALL_CHANNELS, wall.total) - 1;
  byId("wall-facts").textContent =
    wall.maps.length === 0 ? "Computing…" : `Channels ${wall.first}–${last} of ${wall.total}`;
  byId("wall-back").hidden = byId("wall-on").hidden = wall.total <= WALL_CHANNELS;
  byId("wall-back").disabled = wall.first === 0;
  byId("wall-on").disabled = last + 1 >= wall.total;
  replaceChildren(
    byId("channels"),
    ...wall.maps.map((map) =>
      element(
        "li",
        {},
        element(
          "button",
          {
            type: "button",
            className: "thumbnail",
            "aria-label": map.channel === null ? "All units" : `Channel ${map.channel}`,
            onclick: () => update({ shownKey: map.key, view: "map" }),
          },
          drawChannel(map),
          element("span", { className: "hint" }, map.channel ?? "all units"),
        ),
      ),
    ),
  );
}

/** Set up this part of the page. */
export function start() {
  byId("wall-back").addEventListener("click", () => showWall(state.wall.layer, state.wall.first - WALL_CHANNELS));
  byId("wall-on").addEventListener("click", () => showWall(state.wall.layer, state.wall.first + WALL_CHANNELS));
  on(["wall", "view"], show);
}
