// Small pictures of the photo's other maps, the titles of the large one, and the menu of what to compare it with.

import { captionOf, short } from "./canvas.js";
import { byId, element, replaceChildren } from "./dom.js";
import { compose } from "./drawing.js";
import { mapsNow, showSomeMap } from "./explorer.js";
import { classOf, titleOf } from "./methods.js";
import { percent } from "./predictions.js";
import { currentPhoto, mapByKey, on, state, update } from "./state.js";

/** Pixels of the longer side of a small picture. */
const SIDE = 192;

let reduced = { pixels: null, small: null };

/** Return the photo's pixels, reduced to the size of a small picture. */
function reducePhoto(pixels) {
  if (reduced.pixels === pixels) return reduced.small;
  const scale = Math.min(1, SIDE / Math.max(pixels.width, pixels.height));
  const source = new OffscreenCanvas(pixels.width, pixels.height);
  source.getContext("2d").putImageData(pixels, 0, 0);
  const width = Math.max(1, Math.round(pixels.width * scale));
  const height = Math.max(1, Math.round(pixels.height * scale));
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  reduced = { pixels, small: context.getImageData(0, 0, width, height) };
  return reduced.small;
}

/** Return a small canvas with a map over the chosen photo. */
function drawSmall(map) {
  const photo = currentPhoto();
  const picture = compose(map, photo?.pixels ? reducePhoto(photo.pixels) : null, state.look);
  const canvas = element("canvas", { width: picture.width, height: picture.height, "aria-hidden": "true" });
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

function showStrip() {
  const items = mapsNow().map((map) =>
    element(
      "li",
      {},
      element(
        "button",
        {
          id: `show-${map.key}`,
          type: "button",
          className: "thumbnail",
          "aria-label": `Show ${captionOf(map)}`,
          "aria-pressed": String(map.key === state.shownKey && state.view === "map"),
          onclick: () => update({ shownKey: map.key, view: "map" }),
        },
        drawSmall(map),
        element("span", { className: "name" }, titleOf(map)),
        element("span", { className: "hint" }, classOf(map)),
      ),
    ),
  );
  byId("maps").classList.toggle("thirds", state.target.kind === "top" && state.target.k === 3);
  replaceChildren(byId("maps"), ...items);
}

function showTitle() {
  const map = mapByKey(state.shownKey);
  const isWall = state.view === "channels";
  const photo = currentPhoto();
  byId("to-channels").hidden = isWall || map?.channel === undefined;
  if (isWall) {
    byId("picture-title").textContent = `Channels of ${state.wall.layer}`;
    byId("picture-class").textContent = "Each scaled by itself. Click one to enlarge it.";
  } else if (map) {
    byId("picture-title").textContent = titleOf(map);
    byId("picture-class").textContent = explanationOf(map);
  } else {
    byId("picture-title").textContent = photo ? photo.name : "Start with a photo";
    byId("picture-class").textContent = "";
  }
}

/** Return what a map explains: class, probability or score, model. */
function explanationOf(map) {
  if (!map.target) return `activations of ${map.model}`;
  const { probability, score } = map.target;
  const certainty = probability === null || probability === undefined ? `score ${short(score)}` : percent(probability);
  return `for ${classOf(map)}, ${certainty}, by ${map.model}`;
}

function showCompare() {
  const now = mapsNow();
  const earlier = state.maps.filter((map) => map.photoId === state.photoId && !now.includes(map));
  const option = (map) =>
    element("option", { value: map.key, selected: map.key === state.comparedKey }, captionOf(map));
  const group = (label, maps) => (maps.length === 0 ? null : element("optgroup", { label }, ...maps.map(option)));
  replaceChildren(
    byId("compare"),
    element("option", { value: "" }, "nothing"),
    element("option", { value: "photo", selected: state.comparedKey === "photo" }, "the photo"),
    group("Maps", now),
    group("Earlier maps of this photo", [...earlier].reverse()),
  );
  byId("compare").disabled = !currentPhoto()?.pixels || state.view !== "map" || !mapByKey(state.shownKey);
}

/** Leave what is compared where it is no map of the chosen photo. */
function checkCompared() {
  const map = mapByKey(state.comparedKey);
  if (state.comparedKey && state.comparedKey !== "photo" && map?.photoId !== state.photoId)
    update({ comparedKey: null });
}

/** Set up this part of the page. */
export function start() {
  byId("compare").addEventListener("change", (event) => update({ comparedKey: event.target.value || null }));
  byId("to-channels").addEventListener("click", () => update({ view: "channels" }));
  on(["photoId", "model", "target", "methods", "camLayer", "isSigned"], showSomeMap);
  on(["photoId", "maps"], checkCompared);
  const shown = ["photos", "photoId", "maps", "shownKey", "view", "model", "target", "methods", "camLayer", "isSigned"];
  on([...shown, "look"], showStrip);
  on([...shown, "wall"], showTitle);
  on([...shown, "comparedKey"], showCompare);
}
