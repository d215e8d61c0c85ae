// The program of the SDK that computes the arrays of the page and draws the same picture.

import * as api from "./api.js";
import { mapsNow } from "./explorer.js";
import { isSinglePass, methodsOf, pythonOf, readArrayName } from "./methods.js";
import { currentPhoto, mapByKey, state } from "./state.js";

/** Return the methods whose maps are shown: those of one pass that are on, and the others that were computed. */
export function shownMethods() {
  const computed = new Set(mapsNow().map(({ array }) => readArrayName(array).method));
  return methodsOf(state.model).filter((method) =>
    isSinglePass(method) ? state.methods.has(method.id) : computed.has(method),
  );
}

/** Return a program that computes the arrays that the page shows. */
export function writeProgram() {
  const map = mapByKey(state.shownKey);
  const options = `${JSON.stringify(state.server?.address || "localhost:50051")}${api.token() ? ', token=os.environ["CONVLENS_TOKEN"]' : ""}`;
  if (map?.jobId && !currentPhoto()?.blob) {
    return [
      ...imports(["Client"]),
      "",
      `with Client(${options}) as client:`,
      `    result = client.job(${JSON.stringify(map.jobId)}).result()`,
    ].join("\n");
  }
  const isChannel = map?.channel !== undefined;
  const calls = isChannel
    ? [`Activations(${JSON.stringify(map.layer)}${map.channel === null ? "" : `, channels=[${map.channel}]`})`]
    : shownMethods().map((method) => pythonOf(method, state.camLayer, state.isSigned));
  const { kind, index, k } = state.target;
  const target = isChannel ? null : kind === "index" ? String(index) : kind === "top" ? `TopK(${k})` : null;
  const names = new Set(calls.map((call) => call.split("(")[0]));
  if (target?.startsWith("TopK")) names.add("TopK");
  const shown = map && !isChannel ? [`result.overlay(${JSON.stringify(map.array)}${overlayOptions(map)}).save("map.png")`] : [];
  return [
    ...imports(["Client", ...[...names].sort()]),
    "",
    `with Client(${options}) as client:`,
    "    result = client.visualize(",
    `        ${JSON.stringify(currentPhoto()?.name ?? "photo.jpg")},`,
    ...(calls.length > 1
      ? ["        [", ...calls.map((call) => `            ${call},`), "        ],"]
      : [`        [${calls.join("")}],`]),
    `        model=${JSON.stringify(state.model.name)},`,
    ...(target ? [`        target=${target},`] : []),
    "    )",
    ...shown,
  ].join("\n");
}

const imports = (names) => [
  ...(api.token() ? ["import os", ""] : []),
  `from convlens.client import ${names.join(", ")}`,
];

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
