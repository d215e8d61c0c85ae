// Arrays of a result become maps: float32 values of one method, one layer, one target.

/**
 * Return the values of an array of a result as float32: uint8 as offset + scale·q of each map, float16 widened.
 * @param array {shape, dtype, scale, offset, data} with `data` in base64, little-endian, row-major
 */
export function decode(array) {
  const bytes = Uint8Array.from(atob(array.data), (character) => character.charCodeAt(0));
  if (array.dtype === "float32") return new Float32Array(bytes.buffer);
  if (array.dtype === "float16") return Float32Array.from(new Uint16Array(bytes.buffer), widen);
  if (!array.scale?.length) return Float32Array.from(bytes);
  const size = bytes.length / array.scale.length; // of one map
  return Float32Array.from(bytes, (q, i) => array.offset[Math.floor(i / size)] + array.scale[Math.floor(i / size)] * q);
}

/** Return the number that 16 bits of IEEE 754 binary16 stand for. */
function widen(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/**
 * Return the maps of one image of a result.
 * @param result the JSON of /v1/visualize
 * @param image its index
 * @returns [{array, rank, target, values, height, width, isSigned}]; `rank` counts targets, `target` is what the map
 *   explains, or null
 */
export function mapsOf(result, image) {
  return result.arrays
    .filter(({ name }) => !name.startsWith("activations/"))
    .flatMap((array) => {
      const explained = result.explained[image]?.[array.name] ?? [];
      const targets = result.has_target_axis ? array.shape[1] : 1;
      const [height, width, colors = 1] = array.shape.slice(result.has_target_axis ? 2 : 1);
      const all = decode(array);
      const size = height * width * colors;
      return Array.from({ length: targets }, (_, rank) => {
        const from = (image * targets + rank) * size;
        const values = colorSum(all.subarray(from, from + size), colors);
        const target = explained[rank] ?? null;
        return { array: array.name, rank, target, values, height, width, isSigned: array.signed };
      });
    });
}

/** Add up the colour channels of a map, as the SDK's pictures do. */
function colorSum(values, colors) {
  if (colors === 1) return values;
  return Float32Array.from({ length: values.length / colors }, (_, i) =>
    values.subarray(i * colors, (i + 1) * colors).reduce((sum, value) => sum + value, 0),
  );
}

/**
 * Return the channels of a layer as maps. A dense layer's units form one map, as square as it can be.
 * @param channels the channels' numbers, in the array's order
 */
export function channelsOf(array, channels) {
  const values = decode(array);
  const isDense = array.shape.length === 2;
  if (isDense) {
    const width = Math.ceil(Math.sqrt(values.length));
    const padded = new Float32Array(width * Math.ceil(values.length / width));
    padded.set(values);
    return [{ channel: null, values: padded, height: padded.length / width, width, isSigned: array.signed }];
  }
  const [, height, width] = array.shape.length === 4 ? array.shape : [1, array.shape[1], 1]; // positions in a row
  return channels.map((channel, at) => {
    const plane = new Float32Array(height * width);
    for (let i = 0; i < plane.length; i++) plane[i] = values[i * channels.length + at];
    return { channel, values: plane, height, width, isSigned: array.signed };
  });
}
