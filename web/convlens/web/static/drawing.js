// A map and the photo under it become pixels, by the rules of the SDK's drawing.py: overlay() gives the same picture.

import { colorIndex, colorTable } from "./colormaps.js";
import { resize } from "./resize.js";

/** The share of the strongest value at which a map over the photo has all its opacity. */
const FULL_AT = 2 / 3;
/** Pixels of the shorter side to which a smaller map without a photo is enlarged. */
const MIN_SIDE = 224;

/**
 * How maps are drawn.
 * kind: blended (over the photo), alone, or masked (the photo, dark where the map is low);
 * opacity 0…1; percentile: magnitudes above it are clipped; threshold 0…1 of the range: weaker values are left out;
 * sign: both, positive, negative or absolute, of signed maps; colors: a key of COLORMAPS; isGray: the photo in grays.
 */
export const DEFAULT_LOOK = Object.freeze({
  kind: "blended",
  opacity: 0.75,
  percentile: 99.5,
  threshold: 0,
  sign: "both",
  colors: "default",
  isGray: false,
});

/** Reduce a map to what is drawn of it: values by the sign, and the range of its colours. See drawing.Heat. */
export function toHeat(map, look) {
  const { values, height, width } = map;
  const isSigned = map.isSigned || values.some((value) => value < 0);
  let drawn = values;
  if (isSigned && look.sign === "absolute") drawn = values.map(Math.abs);
  else if (isSigned && look.sign === "positive") drawn = values.map((value) => Math.max(value, 0));
  else if (isSigned && look.sign === "negative") drawn = values.map((value) => Math.max(-value, 0));
  const isDiverging = isSigned && look.sign === "both";
  return { values: drawn, height, width, isDiverging, limit: strongest(drawn, look.percentile) };
}

/** Return the percentile of the magnitudes (linear between ranks, as NumPy), or their maximum where that is 0. */
export function strongest(values, percentile) {
  const magnitudes = Float32Array.from(values, Math.abs).sort();
  const rank = (percentile / 100) * (magnitudes.length - 1);
  const below = Math.floor(rank);
  const above = Math.min(below + 1, magnitudes.length - 1);
  const value = magnitudes[below] + (rank - below) * (magnitudes[above] - magnitudes[below]);
  return value || magnitudes[magnitudes.length - 1];
}

/** Return height and width of the picture of a map without a photo: a whole multiple of its own. */
export function enlarged({ height, width }) {
  const factor = Math.ceil(MIN_SIDE / Math.min(height, width));
  return { height: height * factor, width: width * factor };
}

/** Resized maps, the last used last: sliders need only colours anew. */
const resized = [];
/** Numbers in all of them together. */
const MAX_RESIZED = 24e6;

/** Return the values of a map at a size. */
function valuesAt(map, heat, look, height, width) {
  const key = `${look.sign} ${height}×${width}`;
  const at = resized.findIndex((entry) => entry.map === map && entry.key === key);
  const [entry] = at >= 0 ? resized.splice(at, 1) : [];
  const values = entry?.values ?? resize(heat.values, heat.height, heat.width, height, width);
  resized.push({ map, key, values });
  let total = resized.reduce((sum, { values: { length } }) => sum + length, 0);
  while (total > MAX_RESIZED && resized.length > 1) total -= resized.shift().values.length;
  return values;
}

/**
 * Draw a map over a photo, or alone where there is no photo.
 * @param map {values, height, width, isSigned}
 * @param photo ImageData, or null
 * @returns {ImageData} of the photo's size; without a photo that of enlarged(map)
 */
export function compose(map, photo, look) {
  const heat = toHeat(map, look);
  const { height, width } = photo ?? enlarged(map);
  const values = valuesAt(map, heat, look, height, width);
  const isAlone = photo === null || look.kind === "alone";
  const table = colorTable(look.colors, heat.isDiverging, isAlone);
  const picture = new ImageData(width, height);
  const pixels = picture.data;
  const low = heat.isDiverging ? -1 : 0;
  for (let i = 0, at = 0; i < values.length; i++, at += 4) {
    let value = values[i] / (heat.limit || 1);
    value = value < low ? low : value > 1 ? 1 : value;
    if (Math.abs(value) < look.threshold) value = 0;
    const color = 3 * colorIndex(value, heat.isDiverging);
    let weight = 1;
    if (!isAlone) weight = look.kind === "masked" ? 1 - Math.max(value, 0) : look.opacity * ramp(Math.abs(value));
    for (let c = 0; c < 3; c++) {
      const top = look.kind === "masked" && !isAlone ? 0 : table[color + c];
      const base = isAlone ? 0 : look.isGray ? luminance(photo.data, at) : photo.data[at + c];
      pixels[at + c] = base + weight * (top - base); // rounded to the nearest by the array itself
    }
    pixels[at + 3] = 255;
  }
  return picture;
}

/** Return opacities: 0 with slope 0 at 0, so that signs change without an edge, 1 with slope 0 from FULL_AT on. */
function ramp(magnitude) {
  const share = Math.min(magnitude / FULL_AT, 1);
  return share * share * (3 - 2 * share);
}

function luminance(pixels, at) {
  return Math.round(0.299 * pixels[at] + 0.587 * pixels[at + 1] + 0.114 * pixels[at + 2]);
}
