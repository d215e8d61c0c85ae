// A diagram of the network: a column for each layer, as high as its output is large and as wide as it has channels.

import { byId, element, replaceChildren } from "./dom.js";
import { showWall } from "./explorer.js";
import { isWithoutPhoto, on, state, update } from "./state.js";

const MAX_HEIGHT = 96; // pixels
const CLICKS = { cam: "class activation map", channels: "channels" };

const isSpatial = ({ shape }) => shape.length === 3 && shape[0] * shape[1] > 1;

/** Return whether a class activation map of a layer exists: it has positions and comes before the scores. */
function hasCam(layer, model) {
  const names = model.layers.map(({ name }) => name);
  return isSpatial(layer) && names.indexOf(layer.name) < names.indexOf(model.score_layer);
}

const familyOf = (kind) => {
  if (/Conv/.test(kind)) return "convolution";
  return /Pool/.test(kind) ? "pooling" : /Dense/.test(kind) ? "dense" : "other";
};

/** Return the name of a layer's block, block3 of block3_conv1, where it has one. */
const blockOf = ({ name }) => /^(.*?\d+)_/.exec(name)?.[1] ?? "";

function makeColumn(layer, model) {
  const largest = Math.max(...model.layers.map(({ shape }) => (shape.length === 3 ? shape[0] : 1)));
  const side = isSpatial(layer) ? layer.shape[0] : 1;
  const isEnabled = !isWithoutPhoto() && (state.layerClick === "channels" || hasCam(layer, model));
  const isChosen =
    state.layerClick === "channels"
      ? state.view === "channels" && state.wall?.layer === layer.name
      : (state.camLayer ?? model.cam_layer) === layer.name;
  const shape = element("span", { className: `layer-shape ${familyOf(layer.kind)}` });
  const depth = Math.log2(layer.shape.at(-1) || 1);
  shape.style.height = `${isSpatial(layer) ? Math.max(8, MAX_HEIGHT * Math.sqrt(side / largest)) : 12 + 3 * depth}px`;
  shape.style.width = `${isSpatial(layer) ? Math.round(2 + 3 * depth) : 6}px`;
  return element(
    "button",
    {
      id: `layer-${layer.name}`,
      type: "button",
      className: "layer",
      "aria-pressed": String(isChosen),
      disabled: !isEnabled,
      title: describe(layer),
      "aria-label": describe(layer),
      onclick: () => choose(layer),
      onfocus: () => showFacts(layer),
      onpointerenter: () => showFacts(layer),
    },
    shape,
  );
}

const describe = (layer) => `${layer.name}, ${layer.kind}, ${layer.shape.join("×")}`;

function showFacts(layer) {
  byId("layer-facts").textContent = describe(layer);
}

function choose(layer) {
  if (state.layerClick === "channels") showWall(layer.name);
  else update({ camLayer: layer.name === state.model.cam_layer ? null : layer.name, view: "map" });
}

function showDiagram() {
  const { model } = state;
  if (!model) return;
  const blocks = [];
  for (const layer of model.layers) {
    const name = blockOf(layer);
    if (blocks.length === 0 || blocks.at(-1).name !== name) blocks.push({ name, layers: [] });
    blocks.at(-1).layers.push(layer);
  }
  const groups = blocks.map(({ name, layers }) => {
    const sizes = layers.filter(isSpatial).map(({ shape }) => `${shape[0]}×${shape[1]}`);
    return element(
      "div",
      { className: "block" },
      element("div", { className: "columns" }, ...layers.map((layer) => makeColumn(layer, model))),
      element(
        "span",
        { className: "hint" },
        [name.replace(/(\d+)$/, " $1"), sizes[0]].filter(Boolean).join(" · ") || "dense",
      ),
    );
  });
  replaceChildren(byId("layers"), ...groups);
  const chosen = state.layerClick === "channels" ? state.wall?.layer : (state.camLayer ?? model.cam_layer);
  const layer = model.layers.find(({ name }) => name === chosen);
  byId("layer-facts").textContent = layer ? describe(layer) : "";
}

function showClicks() {
  const options = Object.entries(CLICKS).map(([value, label]) =>
    element(
      "label",
      {},
      element("input", {
        id: `click-${value}`,
        type: "radio",
        name: "layer-click",
        checked: value === state.layerClick,
        onchange: () => update({ layerClick: value }),
      }),
      label,
    ),
  );
  replaceChildren(byId("layer-click"), byId("layer-click").querySelector("legend"), ...options);
}

/** Leave a layer that the model does not have, and the channels of another photo or model. */
function checkLayer() {
  const has = state.model?.layers.some(({ name }) => name === state.camLayer);
  if (state.camLayer && !has) update({ camLayer: null });
  update({ view: "map", wall: null });
}

/** Set up this part of the page. */
export function start() {
  on(["photoId", "model"], checkLayer);
  on(["model", "camLayer", "layerClick", "wall", "view", "photoId", "photos"], showDiagram);
  on(["layerClick", "model"], showClicks);
  byId("layers").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...byId("layers").querySelectorAll("button:not(:disabled)")];
    buttons[buttons.indexOf(document.activeElement) + step]?.focus();
  });
}
