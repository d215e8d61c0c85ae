// The classes: bars of the predicted ones, how many are explained, and a search among all of the model's labels.

import { byId, element, replaceChildren } from "./dom.js";
import { currentPredictions, isWithoutPhoto, on, state, update } from "./state.js";

/** How many classes can be explained side by side. */
const TOP = [1, 2, 3, 5];
/** Classes that a search lists. */
const MAX_MATCHES = 6;

export const nameOf = (index) => state.model?.labels?.[index] || `class ${index}`;

/** Return a probability as the SDK prints it. */
export function percent(probability) {
  if (probability < 0.0005) return "<0.1%";
  return probability >= 0.9995 && probability < 1 ? ">99.9%" : `${(100 * probability).toFixed(1)}%`;
}

/** Explain one class. The best class stays "the predicted one", which for the next photo is another. */
function choose(index) {
  const isBest = currentPredictions()[0]?.index === index;
  update({ target: isBest ? { kind: "predicted" } : { kind: "index", index } });
}

/** Return whether a class is among those that are explained. */
function isTarget(index, rank) {
  const { kind, k } = state.target;
  if (kind === "index") return state.target.index === index;
  return rank < (kind === "top" ? k : 1);
}

function showPredictions() {
  const predictions = currentPredictions();
  const shown = [...predictions];
  if (state.target.kind === "index" && !predictions.some(({ index }) => index === state.target.index)) {
    shown.push({ index: state.target.index, label: nameOf(state.target.index), logit: null, probability: null });
  }
  const logits = predictions.map(({ logit }) => logit);
  const strongest = Math.max(...logits, 0) || 1;
  const items = shown.map(({ index, label, logit, probability }, rank) => {
    const share = probability ?? Math.max(0, logit ?? 0) / strongest;
    const bar = element("span", { className: "fill" });
    bar.style.width = `${100 * share}%`;
    const value = probability !== null ? percent(probability) : logit !== null ? `logit ${logit.toFixed(2)}` : "chosen";
    return element(
      "li",
      {},
      element(
        "button",
        {
          id: `class-${index}`,
          type: "button",
          className: "prediction",
          "aria-pressed": String(isTarget(index, rank)),
          title: `Explain ${label || nameOf(index)}`,
          onclick: () => choose(index),
          disabled: isWithoutPhoto(),
        },
        element("span", { className: "name" }, label || nameOf(index)),
        element("span", { className: "value" }, value),
        element("span", { className: "track", "aria-hidden": "true" }, bar),
      ),
    );
  });
  replaceChildren(byId("predictions"), ...items);
  byId("predictions-hint").hidden = shown.length > 0;
}

function showTop() {
  const most = Math.min(state.model?.classes ?? 0, state.server?.limits.max_targets ?? 1);
  const chosen = state.target.kind === "top" ? state.target.k : 1;
  const options = TOP.filter((k) => k === 1 || k <= most).map((k) =>
    element(
      "label",
      {},
      element("input", {
        id: `explain-${k}`,
        type: "radio",
        name: "explain",
        checked: k === chosen,
        "aria-label": `Explain top ${k}`,
        disabled: isWithoutPhoto(),
        onchange: () => update({ target: k === 1 ? { kind: "predicted" } : { kind: "top", k } }),
      }),
      k,
    ),
  );
  replaceChildren(byId("explain"), byId("explain").querySelector("legend"), ...options);
}

function search() {
  const text = byId("class-search").value.trim().toLowerCase();
  const count = state.model?.classes ?? 0;
  const matches = [];
  for (let index = 0; text && index < count && matches.length < MAX_MATCHES; index++) {
    if (nameOf(index).toLowerCase().includes(text) || String(index) === text) matches.push(index);
  }
  const items = matches.map((index) =>
    element(
      "li",
      {},
      element("button", { type: "button", className: "match", onclick: () => pick(index) }, nameOf(index)),
    ),
  );
  if (text && items.length === 0) items.push(element("li", { className: "hint" }, "No class of this model matches."));
  byId("class-matches").replaceChildren(...items);
  return matches;
}

function pick(index) {
  byId("class-search").value = "";
  byId("class-matches").replaceChildren();
  byId("class-search").focus();
  choose(index);
}

/** Set up this part of the page. */
export function start() {
  byId("class-search").addEventListener("input", search);
  byId("class-search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const [first] = search();
    if (first !== undefined) pick(first);
  });
  on(["predictions", "photoId", "photos", "model", "target"], showPredictions);
  on(["model", "server", "target", "photoId", "photos"], showTop);
}
