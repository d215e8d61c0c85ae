// The start of the page: what the server has, the choice of the model, the token, and the address bar.

import * as api from "./api.js";
import * as canvas from "./canvas.js";
import { byId, element } from "./dom.js";
import * as downloads from "./downloads.js";
import { openJob, refresh } from "./explorer.js";
import * as layers from "./layers.js";
import * as look from "./look.js";
import * as mapStrip from "./map_strip.js";
import { clearError, showError, whenUnauthorized } from "./messages.js";
import { DEFAULT_METHODS, isSinglePass, methodsOf } from "./methods.js";
import * as methodList from "./method_list.js";
import * as photos from "./photos.js";
import * as predictions from "./predictions.js";
import { mapByKey, on, state, update } from "./state.js";
import * as wall from "./wall.js";

/** Read what the server has, then choose its default model. */
async function connect() {
  try {
    const [server, { models }] = await Promise.all([api.server(), api.models()]);
    clearError();
    update({ server, models });
    const names = models.map(({ name }) => name);
    if (names.length === 0) throw new api.ApiError({ detail: "This server has no model yet. Start a worker with one" });
    await chooseModel(names.includes(server.default_model) ? server.default_model : names[0]);
    const [, id] = /^\/jobs\/([^/]+)$/.exec(location.pathname) ?? [];
    if (id && state.photos.length === 0) await openJob(decodeURIComponent(id));
  } catch (error) {
    showError(error);
  }
}

/** Explain by another model; methods that it does not have are left out. */
async function chooseModel(name) {
  try {
    const model = await api.model(name);
    const available = new Set(
      methodsOf(model)
        .filter(isSinglePass)
        .map(({ id }) => id),
    );
    const kept = [...(state.model ? state.methods : DEFAULT_METHODS)].filter((id) => available.has(id));
    update({ model, methods: new Set(kept), target: { kind: "predicted" }, camLayer: null });
  } catch (error) {
    showError(error);
  }
}

function showModels() {
  const options = state.models.map(({ name }) =>
    element("option", { value: name, selected: name === state.model?.name }, name),
  );
  byId("model").replaceChildren(...options);
  if (!state.model) return;
  const {
    input_shape: [height, width],
    classes,
    layers: all,
    preprocess_assumed: isAssumed,
    synthetic,
  } = state.model;
  const notes = [`${height}×${width} input`, `${classes} classes`, `${all.length} layers`];
  if (isAssumed) notes.push("preprocessing assumed");
  if (synthetic) notes.push("computes nothing: for load tests");
  byId("model-facts").textContent = notes.join(" · ");
}

/** Show that something is under way, and how far the newest job is. */
function showPending() {
  const job = [...state.jobs.values()].at(-1);
  byId("pending").hidden = state.pending === 0 && !job;
  byId("pending-text").textContent = job ? `Job at ${Math.round(100 * job.progress)}%` : "Computing…";
}

/** Let the address bar follow: the job of the map that is shown, else the job under way. */
function followAddress() {
  const id = mapByKey(state.shownKey)?.jobId ?? [...state.jobs.values()].at(-1)?.id;
  const path = id ? `/jobs/${encodeURIComponent(id)}` : "/";
  if (path !== location.pathname) history.replaceState(null, "", path);
}

function openTokenDialog(error = null) {
  if (error) byId("token-why").textContent = error.message;
  byId("token").value = api.token();
  if (!byId("token-dialog").open) byId("token-dialog").showModal();
}

async function useToken() {
  if (byId("token-dialog").returnValue !== "save") return;
  api.setToken(byId("token").value.trim());
  await connect();
  await refresh();
}

function start() {
  for (const part of [photos, predictions, methodList, canvas, mapStrip, layers, wall, look, downloads]) part.start();
  on(["models", "model"], showModels);
  on(["shownKey", "jobs", "maps"], followAddress);
  on(["pending", "jobs"], showPending);
  on(["photoId", "model", "target", "methods", "camLayer", "isSigned"], refresh);
  byId("model").addEventListener("change", (event) => chooseModel(event.target.value));
  byId("token-open").addEventListener("click", () => openTokenDialog());
  byId("token-dialog").addEventListener("close", useToken);
  whenUnauthorized(openTokenDialog);
  connect();
}

start();
