// Bicubic resampling as Pillow's Image.resize: the same maps look alike in the browser and in the SDK's pictures.

/** Return the cubic kernel with a = −0.5 at distance `x`. */
function cubic(x) {
  const distance = Math.abs(x);
  if (distance < 1) return (1.5 * distance - 2.5) * distance * distance + 1;
  if (distance < 2) return ((-0.5 * distance + 2.5) * distance - 4) * distance + 2;
  return 0;
}

/** Return for each of `to` positions the first of `from` samples that it is made of, and their weights. */
function weightsOf(from, to) {
  const scale = from / to;
  const stretch = Math.max(scale, 1); // a wider kernel where the map shrinks
  const taps = [];
  for (let at = 0; at < to; at++) {
    const center = (at + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - 2 * stretch + 0.5));
    const end = Math.min(from, Math.trunc(center + 2 * stretch + 0.5));
    const weights = [];
    for (let sample = first; sample < end; sample++) weights.push(cubic((sample - center + 0.5) / stretch));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    taps.push({ first, weights: weights.map((weight) => weight / sum) });
  }
  return taps;
}

/**
 * Resize rows × columns of numbers to `toHeight` × `toWidth`, with half-pixel centres, smoothed where they shrink.
 * @returns {Float32Array}
 */
export function resize(values, height, width, toHeight, toWidth) {
  const wide = new Float32Array(height * toWidth);
  weightsOf(width, toWidth).forEach(({ first, weights }, x) => {
    for (let y = 0; y < height; y++) {
      let sum = 0;
      for (let tap = 0; tap < weights.length; tap++) sum += weights[tap] * values[y * width + first + tap];
      wide[y * toWidth + x] = sum;
    }
  });
  const resized = new Float32Array(toHeight * toWidth);
  weightsOf(height, toHeight).forEach(({ first, weights }, y) => {
    for (let x = 0; x < toWidth; x++) {
      let sum = 0;
      for (let tap = 0; tap < weights.length; tap++) sum += weights[tap] * wide[(first + tap) * toWidth + x];
      resized[y * toWidth + x] = sum;
    }
  });
  return resized;
}
