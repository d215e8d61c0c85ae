// Which maps the page needs, and how it gets them: maps of one pass by a call, those of many passes by a job.

import * as api from "./api.js";
import { clearError, say, showError } from "./messages.js";
import { channelsOf, mapsOf } from "./arrays.js";
import { arrayOf, isSinglePass, methodsOf, readArrayName, visualizationOf } from "./methods.js";
import { currentPhoto, currentPredictions, state, targetKey, update } from "./state.js";

/** Maps that are kept; the oldest go first. */
const MAX_MAPS = 150;
/** Channels on one page of the wall. */
export const WALL_CHANNELS = 64;
/** Classes that a request predicts. */
const PREDICTIONS = 5;
/** Seconds that a job of many passes may take. */
const JOB_TIMEOUT = 600;
const FINAL_STATES = new Set(["succeeded", "failed", "cancelled", "expired"]);

export const isFinal = (job) => FINAL_STATES.has(job.state);

/** Return the start of the keys of a method's maps, for the settings as they are now. */
export function keyStart(method) {
  const array = arrayOf(method, state.camLayer, state.isSigned, state.model);
  return `${state.photoId} ${state.model.name} ${targetKey(state.target)} ${array} `;
}

/** Return the maps of the chosen photo for the settings as they are now, by method, then by target. */
export function mapsNow() {
  if (!state.model || !state.photoId) return [];
  const photo = currentPhoto();
  if (photo?.jobId) return state.maps.filter((map) => map.photoId === photo.id);
  return methodsOf(state.model)
    .filter((method) => !isSinglePass(method) || state.methods.has(method.id))
    .flatMap((method) => state.maps.filter((map) => map.key.startsWith(keyStart(method))));
}

let running = null;

/** Ask for what is missing of the chosen photo's maps; a request that is no longer needed is cancelled. */
export async function refresh() {
  running?.abort();
  const photo = currentPhoto();
  if (!photo?.blob || !state.model) return;
  const missing = methodsOf(state.model).filter(
    (method) =>
      isSinglePass(method) &&
      state.methods.has(method.id) &&
      !state.maps.some((map) => map.key.startsWith(keyStart(method))),
  );
  const visualizations = missing.map((method) => visualizationOf(method, state.camLayer, state.isSigned));
  if (visualizations.length === 0) {
    if (currentPredictions().length > 0) return showSomeMap();
    visualizations.push({ type: "saliency" }); // for the predictions that come with any map
  }
  running = new AbortController();
  const { signal } = running;
  const place = { photoId: photo.id, model: state.model.name, target: targetKey(state.target) };
  await underWay(async () => {
    addResult(await api.visualize(photo, requestFor(visualizations), signal), place);
    clearError();
  }, signal);
}

/** Return the request for visualizations of the chosen photo. */
export function requestFor(visualizations, datatype = "uint8") {
  const { kind, index, k } = state.target;
  return {
    model: state.model.name,
    visualizations,
    target: kind === "index" ? index : kind === "top" ? { top_k: k } : null,
    predictions: Math.min(PREDICTIONS, state.model.classes),
    datatype,
  };
}

/** Do `work` while the page shows that a request is under way; an error is shown, an abort is not. */
async function underWay(work, signal = null) {
  update({ pending: state.pending + 1 });
  try {
    return await work();
  } catch (error) {
    if (!signal?.aborted) showError(error);
    return null;
  } finally {
    update({ pending: state.pending - 1 });
  }
}

/** Keep the maps and predictions of a result's image. */
function addResult(result, { photoId, model, target, image = 0, jobId = null }) {
  const added = mapsOf(result, image).map((map) => ({
    ...map,
    photoId,
    model,
    jobId,
    key: `${photoId} ${model} ${target} ${map.array} ${map.rank}`,
  }));
  const keys = new Set(added.map(({ key }) => key));
  const kept = state.maps.filter(({ key }) => !keys.has(key));
  const predictions = new Map(state.predictions);
  if (result.predictions[image]?.length) predictions.set(`${photoId} ${model}`, result.predictions[image]);
  update({ maps: [...kept, ...added].slice(-MAX_MAPS), predictions });
  if (photoId === state.photoId) showSomeMap(jobId === null ? null : added[0]?.key);
  if (added.length > 0) say(`${added.length} ${added.length === 1 ? "map is" : "maps are"} ready.`);
}

/**
 * Show a map of the settings as they are now: `preferred`, else one of the method and target that is shown already. Until
 * such a map arrives, the one that is shown stays.
 */
export function showSomeMap(preferred = null) {
  const maps = mapsNow();
  const shown = state.maps.find(({ key }) => key === state.shownKey);
  const alike = shown ? maps.filter((map) => sameMethod(map, shown)) : [];
  const next = maps.find(({ key }) => key === preferred) ?? alike.find(({ rank }) => rank === shown.rank) ?? alike[0];
  const isAwaited = shown?.photoId === state.photoId && state.methods.has(readArrayName(shown.array).method?.id);
  if (next || !isAwaited) update({ shownKey: (next ?? maps[0])?.key ?? null });
}

const sameMethod = (a, b) => readArrayName(a.array).method === readArrayName(b.array).method;

/** Submit a job for a method of many passes and follow it to its end. */
export async function startJob(method) {
  const photo = currentPhoto();
  const place = { photoId: photo.id, model: state.model.name, target: targetKey(state.target) };
  const key = keyStart(method);
  const visualizations = [visualizationOf(method, state.camLayer, state.isSigned)];
  // float32: the result at the job's address is what its NPZ file has, too
  const request = { ...requestFor(visualizations, "float32"), timeout: JOB_TIMEOUT };
  setJob(key, { id: null, state: "queued", progress: 0 });
  const job = await underWay(() => api.submit(photo, request));
  if (!job) setJob(key, null);
  else await follow(job, key, (result) => addResult(result, { ...place, jobId: job.id }));
}

/** Follow a job to its end, and call `onResult` with its result. */
async function follow(job, key, onResult) {
  setJob(key, job);
  try {
    const ended = await lastState(job, key);
    if (ended.state === "succeeded") onResult(await api.result(job.id));
    else if (ended.state === "cancelled") say("The job is cancelled.");
    else showError(new api.ApiError({ detail: ended.error?.message ?? `The job has ${ended.state}.`, ...ended.error }));
  } catch (error) {
    showError(error);
  } finally {
    setJob(key, null);
  }
}

/** Return the job's final state; a stream of events that breaks off is opened again. */
async function lastState(job, key) {
  let current = job;
  while (!isFinal(current)) {
    for await (current of api.watch(job.id)) setJob(key, current);
    if (!isFinal(current)) current = await api.job(job.id);
  }
  return current;
}

function setJob(key, job) {
  const jobs = new Map(state.jobs);
  if (job) jobs.set(key, job);
  else jobs.delete(key);
  update({ jobs });
}

export const cancelJob = (job) => underWay(() => api.cancel(job.id));

/** Show a job by its id: its progress, then its maps, without the photo, which a result does not contain. */
export async function openJob(id) {
  await underWay(async () => {
    const job = await api.job(id);
    const photos = Array.from({ length: job.images }, (_, image) => ({
      id: `${id}/${image}`,
      jobId: id,
      blob: null,
      pixels: null,
      url: null,
      name: job.images === 1 ? "Image of the job" : `Image ${image + 1} of ${job.images}`,
    }));
    update({ photos: [...state.photos, ...photos], photoId: photos[0].id });
    await follow(job, `${id}/`, (result) => {
      photos.forEach((photo, image) => {
        addResult(result, { photoId: photo.id, model: result.model, target: "job", image, jobId: id });
      });
    });
  });
}

/** Show channels of a layer, from `first` on. */
export async function showWall(layer, first = 0) {
  const photo = currentPhoto();
  if (!photo?.blob) return;
  const { shape } = state.model.layers.find(({ name }) => name === layer);
  const isDense = shape.length === 1;
  const count = isDense ? 0 : Math.min(WALL_CHANNELS, shape.at(-1) - first);
  const channels = Array.from({ length: count }, (_, i) => first + i);
  update({ view: "channels", wall: { layer, first, total: isDense ? 1 : shape.at(-1), maps: [] } });
  const requested = state.wall;
  const model = state.model.name;
  const isDone = await underWay(async () => {
    const visualization = { type: "activations", layers: [layer], ...(!isDense && { channels }) };
    const result = await api.visualize(photo, { ...requestFor([visualization]), target: null, predictions: 0 });
    const maps = channelsOf(result.arrays[0], channels).map((map) => ({
      ...map,
      layer,
      photoId: photo.id,
      model,
      jobId: null,
      target: null,
      array: result.arrays[0].name,
      key: `${photo.id} ${model} ${layer} channel ${map.channel}`,
    }));
    if (state.wall === requested) update({ wall: { ...requested, maps } });
    return true;
  });
  if (!isDone && state.wall === requested) update({ view: "map", wall: null });
}
