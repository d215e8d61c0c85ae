// What can be taken away: the picture, the arrays, and the program of the SDK that computes the same arrays.

import * as api from "./api.js";
import { drawPicture } from "./canvas.js";
import { byId, element } from "./dom.js";
import { requestFor } from "./explorer.js";
import { say, showError } from "./messages.js";
import { isSinglePass, visualizationOf } from "./methods.js";
import { decode } from "./photos.js";
import { shownMethods, writeProgram } from "./program.js";
import { currentPhoto, mapByKey, on, state } from "./state.js";

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser reads it after the click has returned
}

const stem = () => (currentPhoto()?.name ?? "map").replace(/\.[^.]*$/, "");

/** Save the picture as it is shown, at the photo's own size. */
async function savePicture() {
  const photo = currentPhoto();
  const canvas = drawPicture(photo.blob ? await decode(photo.blob) : null);
  const map = mapByKey(state.shownKey);
  const name = map ? map.array.replaceAll("/", "-") : "photo";
  canvas.toBlob((blob) => save(blob, `${stem()}-${name}.png`), "image/png");
}

/** Save the arrays as float32: of a job by its id, else those of the methods that are on. */
async function saveArrays() {
  const map = mapByKey(state.shownKey);
  byId("download-npz").disabled = true;
  try {
    if (map?.jobId) {
      save(await api.resultAsNpz(map.jobId), `${map.jobId}.npz`);
    } else {
      const visualizations =
        map?.channel === undefined
          ? shownMethods()
              .filter(isSinglePass)
              .map((method) => visualizationOf(method, state.camLayer, state.isSigned))
          : [{ type: "activations", layers: [map.layer] }];
      save(await api.visualizeAsNpz(currentPhoto(), requestFor(visualizations, "float32")), `${stem()}.npz`);
    }
  } catch (error) {
    showError(error);
  } finally {
    show();
  }
}

function show() {
  const map = mapByKey(state.shownKey);
  byId("download-png").disabled = !map;
  byId("download-npz").disabled = !map;
  byId("python").textContent = state.model ? writeProgram() : "";
}

async function copy() {
  getSelection().selectAllChildren(byId("python"));
  if (!navigator.clipboard) return; // a page without TLS on another machine: the program is selected, to copy it by hand
  await navigator.clipboard.writeText(byId("python").textContent);
  byId("python-copy").textContent = "Copied";
  say("The program is copied.");
  setTimeout(() => (byId("python-copy").textContent = "Copy"), 2000);
}

/** Set up this part of the page. */
export function start() {
  byId("download-png").addEventListener("click", savePicture);
  byId("download-npz").addEventListener("click", saveArrays);
  byId("python-copy").addEventListener("click", copy);
  on(
    ["server", "model", "photoId", "maps", "shownKey", "target", "methods", "camLayer", "isSigned", "look", "photos"],
    show,
  );
}
