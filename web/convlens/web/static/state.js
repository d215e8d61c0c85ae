// What the page shows, in one object, and who is notified when a part of it changes.

import { DEFAULT_LOOK } from "./drawing.js";

/**
 * The state. Only update() changes it, and values in it are replaced, never changed in place.
 *
 * server, models, model: as the gateway describes them; `model` is the card of the chosen one, or null.
 * photos: [{id, name, blob, url, pixels, width, height, jobId}]; `blob` is null for the image of a job from elsewhere,
 *   `pixels` (ImageData) is null where the browser cannot decode the file.
 * photoId: the chosen photo's, or null.
 * target: {kind: "predicted"}, {kind: "index", index} or {kind: "top", k}.
 * methods: ids of the single-pass methods that are on; `isSigned`: evidence against the class too.
 * camLayer: the layer of class activation maps, null for the model's default; layerClick: what a click on a layer shows,
 *   "cam" or "channels"; view: "map", or "channels" for the wall.
 * predictions: by "photo model". maps: every map computed so far, the newest last. shownKey, comparedKey: of two maps
 *   ("photo" for the photo itself, null for none); divider: where they meet, 0…1 of the width.
 * jobs: of methods of many passes, by "photo model target array": {id, state, progress, queue_position…}.
 * wall: the channels that are shown, {layer, first, total, maps}, or null. pending: requests under way.
 * look: how maps are drawn, see drawing.js.
 */
export const state = {
  server: null,
  models: [],
  model: null,
  photos: [],
  photoId: null,
  target: { kind: "predicted" },
  methods: new Set(),
  isSigned: false,
  camLayer: null,
  layerClick: "cam",
  view: "map",
  predictions: new Map(),
  maps: [],
  shownKey: null,
  comparedKey: null,
  divider: 0.5,
  jobs: new Map(),
  wall: null,
  pending: 0,
  look: DEFAULT_LOOK,
};

const listeners = [];
let changed = new Set();

/** Call `listener` once, in a microtask, after any of `keys` has changed. */
export function on(keys, listener) {
  listeners.push({ keys, listener });
}

/** Change parts of the state. */
export function update(changes) {
  const names = Object.keys(changes).filter((name) => state[name] !== changes[name]);
  if (names.length === 0) return;
  Object.assign(state, changes);
  if (changed.size === 0) queueMicrotask(notify);
  names.forEach((name) => changed.add(name));
}

function notify() {
  const names = changed;
  changed = new Set();
  for (const { keys, listener } of listeners) if (keys.some((key) => names.has(key))) listener();
}

/** Return the chosen photo, or null. */
export const currentPhoto = () => state.photos.find(({ id }) => id === state.photoId) ?? null;

/** Return whether the chosen photo is the image of a job, which the server does not give away. */
export const isWithoutPhoto = () => currentPhoto() !== null && !currentPhoto().blob;

/** Return the predicted classes of the chosen photo by the chosen model, best first; empty until they are known. */
export const currentPredictions = () => state.predictions.get(`${state.photoId} ${state.model?.name}`) ?? [];

/** Return a target as text that is equal for equal targets. */
export function targetKey(target) {
  if (target.kind === "index") return `#${target.index}`;
  return target.kind === "top" ? `top${target.k}` : "predicted";
}

/** Return a map by its key, or null. */
export const mapByKey = (key) =>
  state.maps.find((map) => map.key === key) ?? state.wall?.maps.find((map) => map.key === key) ?? null;
