// The methods: those of one pass are switched on and off, those of many passes are started and can be cancelled.

import { byId, element, replaceChildren } from "./dom.js";
import { cancelJob, isFinal, keyStart, startJob } from "./explorer.js";
import { costOf, isSinglePass, methodsOf, unavailableMethodsOf } from "./methods.js";
import { currentPhoto, isWithoutPhoto, on, state, update } from "./state.js";

const makeText = (title, hint) =>
  element("span", { className: "method" }, element("span", {}, title), element("span", { className: "hint" }, hint));

function makeSwitch(method) {
  const toggle = () => {
    const methods = new Set(state.methods);
    if (!methods.delete(method.id)) methods.add(method.id);
    update({ methods });
  };
  return element(
    "li",
    {},
    element(
      "label",
      { className: "check" },
      element("input", {
        id: `method-${method.id}`,
        type: "checkbox",
        checked: state.methods.has(method.id),
        onchange: toggle,
        disabled: isWithoutPhoto(),
      }),
      makeText(method.title, method.shows),
    ),
  );
}

function makeJobRow(method) {
  const key = state.photoId ? keyStart(method) : "";
  const job = state.jobs.get(key);
  const isComputed = state.maps.some((map) => map.key.startsWith(key)) && key !== "";
  const controls = job
    ? makeProgress(job, method)
    : [
        element(
          "button",
          {
            id: `compute-${method.id}`,
            type: "button",
            className: "quiet",
            disabled: isComputed || !currentPhoto()?.blob,
            "aria-label": `Compute ${method.title}`,
            onclick: () => startJob(method),
          },
          isComputed ? "Done" : "Compute",
        ),
      ];
  const hint = `${costOf(method, state.model)} · ${method.shows}`;
  return element("li", { className: "job" }, makeText(method.title, hint), ...controls);
}

function makeProgress(job, method) {
  const place = job.queue_position ? `, ${job.queue_position} before it` : "";
  const text = job.state === "queued" ? `Waiting${place}` : `${Math.round(100 * job.progress)}%`;
  return [
    element("progress", { max: 1, value: job.progress, "aria-label": `Progress of ${method.title}` }),
    element("span", { className: "facts" }, text),
    element(
      "button",
      {
        id: `compute-${method.id}`,
        type: "button",
        className: "quiet",
        disabled: isFinal(job) || job.id === null,
        "aria-label": `Cancel ${method.title}`,
        onclick: () => cancelJob(job),
      },
      "Cancel",
    ),
  ];
}

const makeUnavailableRow = (method) =>
  element("li", { className: "unavailable" }, makeText(method.title, method.reason));

function show() {
  if (!state.model) return;
  byId("signed").disabled = isWithoutPhoto();
  const methods = methodsOf(state.model);
  replaceChildren(byId("methods"), ...methods.filter(isSinglePass).map(makeSwitch));
  replaceChildren(byId("jobs"), ...methods.filter((method) => !isSinglePass(method)).map(makeJobRow));
  const others = unavailableMethodsOf(state.model);
  byId("unavailable-title").hidden = others.length === 0;
  replaceChildren(byId("unavailable"), ...others.map(makeUnavailableRow));
}

/** Set up this part of the page. */
export function start() {
  byId("signed").addEventListener("change", (event) => update({ isSigned: event.target.checked }));
  on(["model", "methods", "jobs", "maps", "photoId", "photos", "target", "camLayer", "isSigned"], show);
}
