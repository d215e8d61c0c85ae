// What the page says: errors in a visible place that screen readers announce, and short notes for screen readers alone.

import { byId, element } from "./dom.js";

let onUnauthorized = () => {};

/** Call `listener` when the server wants a token, or another one. */
export function whenUnauthorized(listener) {
  onUnauthorized = listener;
}

/** Show an error: what went wrong in plain English, then the server's reason, the field at fault and the job. */
export function showError(error) {
  if (error.status === 401) onUnauthorized(error);
  const facts = [
    error.reason && ["Reason", error.reason],
    error.field && ["Field", error.field],
    error.jobId && ["Job", error.jobId],
    error.retryAfter && ["Try again in", `${Math.ceil(error.retryAfter)} s`],
  ].filter(Boolean);
  byId("alert").replaceChildren(
    element("p", {}, sentence(error.message)),
    element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
    element(
      "button",
      { type: "button", className: "quiet", onclick: clearError, "aria-label": "Dismiss this message" },
      "Dismiss",
    ),
  );
  byId("alert").hidden = false;
}

/** Remove the error that is shown. */
export function clearError() {
  byId("alert").hidden = true;
  byId("alert").replaceChildren();
}

/** Let screen readers say something. */
export function say(text) {
  byId("status").textContent = text;
}

/** Return a text with a capital at its start and a full stop at its end. */
function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}
