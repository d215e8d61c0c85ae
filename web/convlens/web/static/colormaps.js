// Colour maps as tables of 256 RGB colours. The defaults are those of the SDK's drawing.py, the others matplotlib's:
// every fifth of their 256 colours with straight lines between them (at most 3 of 255 off).

const OVER_PHOTO = [
  [0, "9b2964"],
  [0.25, "cf4446"],
  [0.55, "f37819"],
  [0.8, "fbb61a"],
  [1, "fcffa4"],
];
const BOTH_OVER_PHOTO = [
  [0, "1546e0"],
  [0.47, "7ab6ff"],
  [0.5, "d0d0d0"],
  [0.53, "ff9d7c"],
  [1, "d9112b"],
];

const EVEN = {
  viridis:
    "440154 46085c 471063 481769 481d6f 482475 472a7a 46307e 453781 433d84 414287 3f4889 3d4e8a " +
    "3a538b 38598c 355e8d 33638d 31688e 2e6d8e 2c718e 2a768e 297b8e 27808e 25848e 23898e 218e8d " +
    "20928c 1f978b 1e9c89 1fa188 21a585 24aa83 28ae80 2eb37c 35b779 3dbc74 46c06f 50c46a 5ac864 " +
    "65cb5e 70cf57 7cd250 89d548 95d840 a2da37 b0dd2f bddf26 cae11f d8e219 e5e419 f1e51d fde725",
  inferno:
    "000004 02020c 050417 0a0722 10092d 160b39 1e0c45 260c51 2f0a5b 380962 400a67 490b6a 510e6c " +
    "59106e 61136e 69166e 71196e 781c6d 801f6c 88226a 902568 982766 a02a63 a82e5f b0315b b73557 " +
    "bf3952 c63d4d cc4248 d34743 d94d3d df5337 e45a31 e9612b ed6925 f1711f f47918 f78212 f98b0b " +
    "fa9407 fb9d07 fca60c fcb014 fbba1f fac42a f8cd37 f6d746 f4e156 f2ea69 f2f27d f5f992 fcffa4",
  magma:
    "000004 02020b 050416 090720 0e0b2b 140e36 1a1042 21114e 29115a 311165 390f6e 420f75 4a1079 " +
    "52137c 5a167e 621980 6a1c81 721f81 792282 812581 892881 912b81 992d80 a1307e aa337d b2357b " +
    "ba3878 c23b75 ca3e72 d2426f d9466b e04c67 e75263 ec5860 f1605d f4695c f7725c f97b5d fb8560 " +
    "fc8e64 fd9869 fea16e feaa74 feb47b febd82 fec68a fecf92 fed89a fde2a3 fdebac fcf4b6 fcfdbf",
  RdBu_r:
    "053061 0a3b70 10457e 15508d 1b5a9c 2065ab 276eb0 2e77b5 3480b9 3b88be 4291c2 4f9bc7 5fa5cd " +
    "6eaed2 7eb8d7 8dc2dc 9bc9e0 a7d0e4 b3d6e8 c0dceb cce2ef d5e7f1 ddebf2 e4eef4 ecf2f5 f3f5f6 " +
    "f8f4f2 f9efe9 fae9df fbe4d6 fcdecd fcd7c2 fbccb4 f9c2a7 f7b799 f5ac8b f2a17f ec9374 e6866a " +
    "e17860 db6b55 d55d4c ce4f45 c6413e bf3338 b82531 b1182b a21328 930e26 840924 760521 67001f",
  gray: "000000 ffffff",
};

/** Names for the menu, in its order. "default" is chosen by the map's sign and by what it is drawn over. */
export const COLORMAPS = {
  default: "Convlens",
  viridis: "Viridis",
  inferno: "Inferno",
  magma: "Magma",
  gray: "Gray",
  RdBu_r: "Blue to red",
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
