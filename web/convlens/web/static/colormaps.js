// Colour maps as tables of 256 RGB colours. The defaults are those of the SDK's drawing.py, the others are matplotlib's,
// from 33 of their colours with straight lines between them (at most 5 of 255 off).

const OVER_PHOTO = [[0, "9b2964"], [0.25, "cf4446"], [0.55, "f37819"], [0.8, "fbb61a"], [1, "fcffa4"]];
const BOTH_OVER_PHOTO = [
  [0, "1546e0"], [0.47, "7ab6ff"], [0.5, "d0d0d0"], [0.53, "ff9d7c"], [1, "d9112b"],
];

const EVEN = {
  viridis:
    "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d " +
    "2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a " +
    "3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725",
  inferno:
    "000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e " +
    "7d1e6d 8a226a 972766 a32c61 b0315b bc3754 c73e4c d24644 db503b e45a31 eb6628 " +
    "f1731d f68013 f98e09 fb9d07 fcac11 fbbc21 f9cb35 f5db4c f2ea69 f3f68a fcffa4",
  magma:
    "000004 030312 0a0822 130d34 1d1147 29115a 36106b 440f76 51127c 5d177f 6a1c81 " +
    "762181 832681 902a81 9c2e7f aa337d b73779 c43c75 d0416f dc4869 e75263 ef5d5e " +
    "f56b5c f9795d fc8961 fd9869 fea772 feb67c fec488 fed395 fde2a3 fcf0b2 fcfdbf",
  RdBu_r:
    "053061 0e4179 175290 1f63a8 2a71b2 3480b9 3f8ec0 529dc8 6bacd1 84bcd9 9bc9e0 " +
    "aed3e6 c2ddec d4e6f1 e0ecf3 ecf2f5 f7f6f6 f9eee7 fbe5d8 fddcc9 fbccb4 f8bb9e " +
    "f5aa89 ee9677 e48066 db6b55 d05548 c53e3d ba2832 ab162a 930e26 7c0722 67001f",
  gray: "000000 ffffff",
};

/** Names for the menu, in its order. "default" is chosen by the map's sign and by what it is drawn over. */
export const COLORMAPS = {
  default: "Convlens", viridis: "Viridis", inferno: "Inferno", magma: "Magma", gray: "Gray", RdBu_r: "Blue to red",
};

const tables = new Map();

/**
 * Return the table of a colour map: 256 × RGB, 0…255.
 * @param name a key of COLORMAPS
 * @param isDiverging true if the middle of the table is zero
 * @param isAlone true for a map without a photo under it
 * @returns {Uint8Array}
 */
export function colorTable(name, isDiverging, isAlone) {
  const key = name !== "default" ? name : isAlone ? (isDiverging ? "RdBu_r" : "inferno") : isDiverging ? "both" : "one";
  if (!tables.has(key)) tables.set(key, makeTable(stopsOf(key)));
  return tables.get(key);
}

/** Return the colour of a value as CSS: of −1…1 where the map is diverging, else of 0…1. */
export function cssColor(table, value, isDiverging) {
  const at = 3 * colorIndex(value, isDiverging);
  return `rgb(${table[at]} ${table[at + 1]} ${table[at + 2]})`;
}

/** Return which of the 256 colours a scaled value has. */
export function colorIndex(value, isDiverging) {
  return Math.min(255, Math.trunc((isDiverging ? (value + 1) / 2 : value) * 256));
}

function stopsOf(key) {
  if (key === "one") return OVER_PHOTO;
  if (key === "both") return BOTH_OVER_PHOTO;
  const colors = EVEN[key].split(" ");
  return colors.map((color, i) => [i / (colors.length - 1), color]);
}

function makeTable(stops) {
  const table = new Uint8Array(256 * 3);
  let next = 1;
  for (let i = 0; i < 256; i++) {
    const at = i / 255;
    while (next < stops.length - 1 && at > stops[next][0]) next++;
    const [[low, from], [high, to]] = [stops[next - 1], stops[next]];
    const share = (at - low) / (high - low);
    for (let c = 0; c < 3; c++) {
      const [a, b] = [from, to].map((color) => parseInt(color.slice(2 * c, 2 * c + 2), 16));
      table[3 * i + c] = Math.trunc(a + share * (b - a) + 1e-6);
    }
  }
  return table;
}
