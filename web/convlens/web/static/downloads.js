// What can be taken away: the picture, the arrays, and the call of the SDK that gives the same arrays.

import * as api from "./api.js";
import { drawPicture } from "./canvas.js";
import { byId, element } from "./dom.js";
import { mapsNow, requestFor } from "./explorer.js";
import { say, showError } from "./messages.js";
import { isSinglePass, methodsOf, pythonOf, readArrayName, visualizationOf } from "./methods.js";
import { decode } from "./photos.js";
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

/** Return the methods whose maps are shown: those of one pass that are on, and the others that were computed. */
function shownMethods() {
  const computed = new Set(mapsNow().map(({ array }) => readArrayName(array).method));
  return methodsOf(state.model).filter((method) => (isSinglePass(method) ? state.methods.has(method.id) : computed.has(method)));
}

/** Save the arrays as float32: of a job by its id, else those of the methods that are on. */
async function saveArrays() {
  const map = mapByKey(state.shownKey);
  byId("download-npz").disabled = true;
  try {
    if (map?.jobId) {
      save(await api.resultAsNpz(map.jobId), `${map.jobId}.npz`);
    } else {
      const visualizations = map?.channel === undefined
        ? shownMethods().filter(isSinglePass).map((method) => visualizationOf(method, state.camLayer, state.isSigned))
        : [{ type: "activations", layers: [map.layer] }];
      save(await api.visualizeAsNpz(currentPhoto(), requestFor(visualizations, "float32")), `${stem()}.npz`);
    }
  } catch (error) {
    showError(error);
  } finally {
    show();
  }
}

/** Return a program that computes the arrays that the page shows. */
function program() {
  const map = mapByKey(state.shownKey);
  const options = `"${state.server?.address || "localhost:50051"}"${api.token() ? ', token=os.environ["CONVLENS_TOKEN"]' : ""}`;
  if (map?.jobId && !currentPhoto()?.blob) {
    return [...imports(["Client"]), "", `with Client(${options}) as client:`, `    result = client.job("${map.jobId}").result()`].join("\n");
  }
  const isChannel = map?.channel !== undefined;
  const calls = isChannel
    ? [`Activations("${map.layer}"${map.channel === null ? "" : `, channels=[${map.channel}]`})`]
    : shownMethods().map((method) => pythonOf(method, state.camLayer, state.isSigned));
  const { kind, index, k } = state.target;
  const target = isChannel ? null : kind === "index" ? String(index) : kind === "top" ? `TopK(${k})` : null;
  const names = new Set(calls.map((call) => call.split("(")[0]));
  if (target?.startsWith("TopK")) names.add("TopK");
  const shown = map && !isChannel ? [`result.overlay("${map.array}"${overlayOptions(map)}).save("map.png")`] : [];
  return [
    ...imports(["Client", ...[...names].sort()]), "",
    `with Client(${options}) as client:`, "    result = client.visualize(", `        ${JSON.stringify(currentPhoto()?.name ?? "photo.jpg")},`,
    ...(calls.length > 1 ? ["        [", ...calls.map((call) => `            ${call},`), "        ],"] : [`        [${calls.join("")}],`]), `        model="${state.model.name}",`, ...(target ? [`        target=${target},`] : []),
    "    )", ...shown,
  ].join("\n");
}

const imports = (names) => [...(api.token() ? ["import os", ""] : []), `from convlens.client import ${names.join(", ")}`];

/** Return the options of overlay() that draw the same picture; it has no threshold. */
function overlayOptions(map) {
  const { look } = state;
  const options = [];
  if (map.rank > 0) options.push(`target=${map.rank}`);
  if (look.kind !== "blended") options.push(`kind="${look.kind === "alone" ? "heat_map" : "masked_image"}"`);
  if (look.opacity !== 0.75) options.push(`opacity=${look.opacity}`);
  if (look.percentile !== 99.5) options.push(`percentile=${look.percentile}`);
  if (look.sign !== "both") options.push(`sign="${look.sign}"`);
  if (look.colors !== "default") options.push(`cmap="${look.colors}"`);
  if (look.isGray) options.push('background="gray"');
  return options.map((option) => `, ${option}`).join("");
}

function show() {
  const map = mapByKey(state.shownKey);
  byId("download-png").disabled = !map;
  byId("download-npz").disabled = !map;
  byId("python").textContent = state.model ? program() : "";
}

async function copy() {
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
  on(["server", "model", "photoId", "maps", "shownKey", "target", "methods", "camLayer", "isSigned", "look", "photos"], show);
}
