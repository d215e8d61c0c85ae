// The controls of the drawing. None of them asks the server: maps are drawn anew from the values that are here.

import { COLORMAPS } from "./colormaps.js";
import { byId, element } from "./dom.js";
import { DEFAULT_LOOK, toHeat } from "./drawing.js";
import { mapByKey, on, state, update } from "./state.js";

const SLIDERS = [
  { id: "opacity", label: "Opacity", min: 0, max: 1, step: 0.01, text: (value) => `${Math.round(100 * value)}%` },
  { id: "percentile", label: "Clip above percentile", min: 80, max: 100, step: 0.1, text: (value) => value.toFixed(1) },
  {
    id: "threshold",
    label: "Hide values below",
    min: 0,
    max: 1,
    step: 0.01,
    text: (value) => `${Math.round(100 * value)}%`,
  },
];
const MENUS = [
  {
    id: "kind",
    label: "Show",
    options: { blended: "Over the photo", alone: "The map alone", masked: "Photo where it is high" },
  },
  {
    id: "sign",
    label: "Sign",
    options: { both: "Both", positive: "For the class", negative: "Against it", absolute: "Magnitude" },
  },
  { id: "colors", label: "Colours", options: COLORMAPS },
];

const change = (id, value) => update({ look: { ...state.look, [id]: value } });

function makeSlider({ id, label, min, max, step }) {
  return element(
    "div",
    { className: "control" },
    element("label", { for: id }, label),
    element("output", { id: `${id}-value`, for: id }),
    element("input", { id, type: "range", min, max, step, oninput: (event) => change(id, event.target.valueAsNumber) }),
  );
}

function makeMenu({ id, label, options }) {
  return element(
    "div",
    { className: "control menu" },
    element("label", { for: id }, label),
    element(
      "select",
      { id, onchange: (event) => change(id, event.target.value) },
      ...Object.entries(options).map(([value, text]) => element("option", { value }, text)),
    ),
  );
}

function show() {
  for (const { id, text } of SLIDERS) {
    byId(id).valueAsNumber = state.look[id];
    byId(`${id}-value`).textContent = text(state.look[id]);
    byId(id).setAttribute("aria-valuetext", text(state.look[id]));
  }
  for (const { id } of MENUS) byId(id).value = state.look[id];
  byId("gray").checked = state.look.isGray;
  const map = mapByKey(state.shownKey);
  byId("sign").disabled = !(map && (map.isSigned || toHeat(map, DEFAULT_LOOK).isDiverging));
  byId("opacity").disabled = state.look.kind !== "blended";
}

/** Set up this part of the page. */
export function start() {
  byId("look").append(
    ...SLIDERS.map(makeSlider),
    ...MENUS.map(makeMenu),
    element(
      "label",
      { className: "check" },
      element("input", { id: "gray", type: "checkbox", onchange: (event) => change("isGray", event.target.checked) }),
      "Photo in grays",
    ),
  );
  byId("look-reset").addEventListener("click", () => update({ look: DEFAULT_LOOK }));
  on(["look", "shownKey", "maps"], show);
  show();
}
