// Photos: dropped, pasted or picked; the strip of them; the example scenes of the model `shapes`.

import { byId, element, replaceChildren } from "./dom.js";
import { showError } from "./messages.js";
import { currentPhoto, isWithoutPhoto, on, state, update } from "./state.js";

/** Pixels of the picture on the page; larger photos are drawn smaller, and at their own size when downloaded. */
const MAX_PIXELS = 3e6;
const SCENES = { "star-and-disc": "A star and a disc", arrow: "An arrow", ring: "A ring", cross: "A cross" };

let lastId = 0;
let lastChoice = null;

/** Add image files to the strip and choose the first of them. */
export async function addPhotos(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/") || /\.(tiff?|jp2)$/i.test(file.name));
  if (images.length < files.length) showError(new Error("Only image files can be explained; the others were left out"));
  const photos = images.map((blob) => ({
    id: `photo${++lastId}`,
    jobId: null,
    blob,
    name: blob.name || "pasted.png",
    url: URL.createObjectURL(blob),
    pixels: null,
  }));
  if (photos.length === 0) return;
  update({ photos: [...state.photos, ...photos] });
  await choosePhoto(photos[0].id);
}

/** Make a photo the one that is explained, unless another is chosen meanwhile. Pixels are kept of this one alone. */
export async function choosePhoto(id) {
  lastChoice = id;
  const photo = state.photos.find((candidate) => candidate.id === id);
  const pixels = photo?.blob ? await decode(photo.blob, MAX_PIXELS) : null;
  if (lastChoice !== id) return;
  const photos = state.photos.map((other) => ({ ...other, pixels: other.id === id ? pixels : null }));
  update({ photos, photoId: id, view: "map" });
}

/** Remove a photo, and choose its neighbour where it was the chosen one. */
async function removePhoto(id) {
  const at = state.photos.findIndex((photo) => photo.id === id);
  const [photo] = state.photos.slice(at);
  if (photo.url) URL.revokeObjectURL(photo.url);
  const photos = state.photos.filter((other) => other !== photo);
  update({ photos, maps: state.maps.filter(({ photoId }) => photoId !== id) });
  if (state.photoId === id) await choosePhoto((photos[at] ?? photos[at - 1])?.id ?? null);
  (byId("photos").querySelector("button") ?? byId("files")).focus();
}

/** Give the image of a job, which a result does not contain, its photo. */
async function attachPhoto(id, blob) {
  const url = URL.createObjectURL(blob);
  update({ photos: state.photos.map((photo) => (photo.id === id ? { ...photo, blob, url } : photo)) });
  await choosePhoto(id);
}

/**
 * Decode an image file as the service does: upright, and over white where it is transparent.
 * @returns {Promise<ImageData|null>} null where the browser does not know the format
 */
export async function decode(blob, maxPixels = Infinity) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    return null;
  }
  const scale = Math.min(1, Math.sqrt(maxPixels / (bitmap.width * bitmap.height)));
  const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function showStrip() {
  const items = state.photos.map((photo) => {
    const isChosen = photo.id === state.photoId;
    const picture = photo.url
      ? element("img", { src: photo.url, alt: "" })
      : element("span", { className: "no-picture" }, "?");
    return element(
      "li",
      {},
      element(
        "button",
        {
          id: `choose-${photo.id}`,
          type: "button",
          className: "thumbnail",
          title: photo.name,
          "aria-label": photo.name,
          "aria-pressed": String(isChosen),
          onclick: () => choosePhoto(photo.id),
          onkeydown: (event) => event.key === "Delete" && removePhoto(photo.id),
        },
        picture,
      ),
      element(
        "button",
        {
          type: "button",
          className: "remove",
          "aria-label": `Remove ${photo.name}`,
          onclick: () => removePhoto(photo.id),
        },
        "×",
      ),
    );
  });
  replaceChildren(byId("photos"), ...items);
}

function showHint() {
  byId("photo-hint").hidden = !isWithoutPhoto();
}

function showScenes() {
  const hasScenes = state.model?.name === "shapes";
  byId("scenes").hidden = !hasScenes;
  byId("more-scenes").hidden = !hasScenes || state.photos.length === 0;
}

const makeSceneButtons = () =>
  Object.entries(SCENES).map(([name, label]) => {
    const picture = element("img", { src: `/static/scenes/${name}.png`, alt: label });
    const button = { type: "button", className: "thumbnail", title: label, onclick: () => addScene(name) };
    return element("li", {}, element("button", button, picture));
  });

async function addScene(name) {
  const response = await fetch(`/static/scenes/${name}.png`);
  await addPhotos([new File([await response.blob()], `${name}.png`, { type: "image/png" })]);
}

function listenForDrops() {
  const drop = byId("drop");
  addEventListener("dragenter", (event) => {
    if (event.dataTransfer.types.includes("Files")) drop.hidden = false;
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) drop.hidden = true;
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.hidden = true;
    acceptFiles(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData.files.length > 0) acceptFiles(event.clipboardData.files);
  });
}

/** Accept files: as the photo of a job that lacks it, else as new photos. */
function acceptFiles(files) {
  if (isWithoutPhoto() && files.length === 1) attachPhoto(currentPhoto().id, files[0]);
  else addPhotos(files);
}

/** Set up this part of the page. */
export function start() {
  byId("files").addEventListener("change", (event) => {
    acceptFiles(event.target.files);
    event.target.value = "";
  });
  listenForDrops();
  byId("first-scenes").append(...makeSceneButtons());
  byId("more-scenes").append(...makeSceneButtons());
  on(["photos", "photoId"], showStrip);
  on(["photos", "photoId"], showHint);
  on(["model", "photos"], showScenes);
}
