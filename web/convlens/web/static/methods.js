// The methods: what each shows, what it costs, and how a request and the SDK name it. See docs/methods.md.

const saliency = (id, title, shows, passes = 1) => ({ id, title, shows, passes, kind: "saliency" });
const cam = (id, title, shows, passes = 1) => ({ id, title, shows, passes, kind: "grad_cam" });

/**
 * All methods. `passes` is 1 where a job's maps share one forward and backward pass; for the others it is the number
 * of passes of one image with the defaults, or a function of the layer's channels.
 */
export const METHODS = [
  cam("grad_cam", "Grad-CAM", "Regions that count for the class"),
  cam("grad_cam_plus_plus", "Grad-CAM++", "Regions, of several objects too"),
  cam("hires_cam", "HiResCAM", "Regions, exact cell by cell"),
  cam("layer_cam", "Layer-CAM", "Regions, finer in early layers"),
  saliency("vanilla", "Saliency", "Pixels that change the score most"),
  saliency("guided", "Guided backprop", "Edges that excite the network"),
  saliency("guided_grad_cam", "Guided Grad-CAM", "Those edges, within the regions"),
  saliency("gradient_x_input", "Gradient × input", "What each pixel contributes"),
  saliency("deconvnet", "Deconvnet", "Edges, by an older rule"),
  saliency("integrated_gradients", "Integrated gradients", "contributions that sum to the score", 52),
  saliency("smooth_grad", "SmoothGrad", "the gradient without its noise", 25),
  saliency("smooth_grad_squared", "SmoothGrad squared", "the same with more contrast", 25),
  saliency("var_grad", "VarGrad", "where noise changes the gradient", 25),
  saliency("xrai", "XRAI", "whole regions, ranked", 52),
  cam("score_cam", "Score-CAM", "regions, by hiding all else", (channels) => channels),
  { id: "occlusion", title: "Occlusion", shows: "what hiding a square costs", passes: 169, kind: "occlusion" },
];

/** What is on at first, where the model has it. */
export const DEFAULT_METHODS = ["grad_cam", "vanilla", "guided"];

/** Methods without negative values to keep. */
const NEVER_SIGNED = new Set(["smooth_grad_squared", "var_grad", "xrai", "score_cam", "occlusion"]);

export const methodById = (id) => METHODS.find((method) => method.id === id) ?? null;
export const isSinglePass = (method) => method.passes === 1;

/** Return the methods that a model cannot have, with the reason. */
export const unavailableMethodsOf = (model) =>
  METHODS.filter(({ id }) => id in model.unavailable_methods).map((method) => ({
    ...method,
    reason: model.unavailable_methods[method.id],
  }));

/** Return the methods that a model has, in the order of METHODS. */
export const methodsOf = (model) => METHODS.filter(({ id }) => model.methods.includes(id));

/** Return what a method of many passes costs one image, in words. */
export function costOf(method, model) {
  const layer = model.layers.find(({ name }) => name === model.cam_layer);
  const passes = typeof method.passes === "function" ? method.passes(layer?.shape.at(-1) ?? 512) : method.passes;
  return `${typeof method.passes === "function" ? "up to " : ""}${passes} passes`;
}

/** Return whether a method's map is to keep its negative values. */
const keepsSign = (method, isSigned) => isSigned && !NEVER_SIGNED.has(method.id);

/** Return a method as a visualization of a request. `layer` is that of class activation maps, null for the default. */
export function visualizationOf(method, layer, isSigned) {
  if (method.kind === "occlusion") return { type: "occlusion" };
  const signed = keepsSign(method, isSigned);
  if (method.kind === "saliency") {
    return { type: "saliency", method: method.id, ...(signed && { reduction: "sum" }) };
  }
  return { type: "grad_cam", method: method.id, ...(layer && { layer }), ...(signed && { signed: true }) };
}

/** Return the name of the array that visualizationOf() gives. */
export function arrayOf(method, layer, isSigned, model) {
  if (method.kind === "occlusion") return "occlusion";
  const signed = keepsSign(method, isSigned);
  if (method.kind === "saliency") {
    return `saliency${method.id === "vanilla" ? "" : `/${method.id}`}${signed ? "/sum" : ""}`;
  }
  return `${method.id}${layer && layer !== model.cam_layer ? `/${layer}` : ""}${signed ? "/signed" : ""}`;
}

/** Return a method as an expression of the SDK. */
export function pythonOf(method, layer, isSigned) {
  if (method.kind === "occlusion") return "Occlusion()";
  const signed = keepsSign(method, isSigned);
  if (method.kind === "saliency") {
    const options = [method.id === "vanilla" ? "" : `"${method.id}"`, signed ? 'reduction="sum"' : ""];
    return `Saliency(${options.filter(Boolean).join(", ")})`;
  }
  const options = [
    layer ? `layer=${JSON.stringify(layer)}` : "",
    method.id === "grad_cam" ? "" : `method="${method.id}"`,
    signed ? "signed=True" : "",
  ];
  return `GradCAM(${options.filter(Boolean).join(", ")})`;
}

/** Return the method and the layer that an array's name names; the layer is null where it is the model's default. */
export function readArrayName(array) {
  const [first, ...rest] = array.split("/");
  if (first === "saliency") return { method: methodById(rest[0]) ?? methodById("vanilla"), layer: null };
  const layer = rest.find((part) => !["upsampled", "signed"].includes(part)) ?? null;
  return { method: methodById(first), layer };
}

/** Return the name of a map for people: its method, and its layer where that is not the default. */
export function titleOf(map) {
  if (map.channel === null) return `${map.layer}, all units`;
  if (map.channel !== undefined) return `${map.layer}, channel ${map.channel}`;
  const { method, layer } = readArrayName(map.array);
  return `${method?.title ?? map.array}${layer ? ` at ${layer}` : ""}`;
}

/** Return the name of the class that a map explains; an empty string for none. */
export function classOf(map) {
  if (!map.target) return "";
  if (map.target.index < 0) return "all classes";
  return map.target.label || `class ${map.target.index}`;
}
