// The gateway's HTTP API: requests with the token, errors as values of one type, the events of a job.

const TOKEN_KEY = "convlens-token";

/** An error that the gateway states, or that its silence amounts to. */
export class ApiError extends Error {
  /** @param problem the fields of an application/problem+json document */
  constructor(problem) {
    super(problem.detail || problem.title || "The request failed.");
    this.status = problem.status ?? 0;
    this.reason = problem.reason ?? "";
    this.field = problem.field ?? "";
    this.jobId = problem.job_id ?? "";
    this.retryAfter = problem.retry_after ?? null;
  }
}

/** Return the token of this tab, or an empty string. */
export const token = () => sessionStorage.getItem(TOKEN_KEY) ?? "";

/** Keep a token until the tab is closed; an empty one removes it. */
export function setToken(value) {
  if (value) sessionStorage.setItem(TOKEN_KEY, value);
  else sessionStorage.removeItem(TOKEN_KEY);
}

/** Send a request and return the response. Throws ApiError, and AbortError where `signal` ended it. */
async function send(path, { method = "GET", body = null, accept = "application/json", signal = null } = {}) {
  const headers = { Accept: accept };
  if (token()) headers.Authorization = `Bearer ${token()}`;
  let response;
  try {
    response = await fetch(path, { method, body, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const detail = "The gateway does not answer. Is “convlens web” still running?";
    throw new ApiError({ detail, reason: "UNREACHABLE" });
  }
  if (!response.ok) throw new ApiError(await problemOf(response));
  return response;
}

async function problemOf(response) {
  try {
    return { status: response.status, ...(await response.json()) };
  } catch {
    return { status: response.status, detail: `The gateway answered ${response.status} ${response.statusText}.` };
  }
}

const json = async (path, options) => (await send(path, options)).json();

export const server = () => json("/v1/server");
export const models = () => json("/v1/models");
export const model = (name) => json(`/v1/models/${encodeURIComponent(name)}`);

/** Compute maps of one photo; an aborted `signal` cancels the computation. Returns the result as JSON. */
export const visualize = (photo, request, signal = null) =>
  json("/v1/visualize", { method: "POST", body: makeForm(photo, request), signal });

/** Compute maps of one photo and return all arrays as the bytes of an NPZ file. */
export const visualizeAsNpz = async (photo, request) =>
  (await send("/v1/visualize", { method: "POST", body: makeForm(photo, request), accept: "application/x-npz" })).blob();

/** Submit a job, which runs whether this page stays or not. Returns the job. */
export const submit = (photo, request) => json("/v1/jobs", { method: "POST", body: makeForm(photo, request) });

export const job = (id) => json(`/v1/jobs/${encodeURIComponent(id)}`);
export const cancel = (id) => json(`/v1/jobs/${encodeURIComponent(id)}/cancel`, { method: "POST" });
export const result = (id) => json(`/v1/jobs/${encodeURIComponent(id)}/result`);
export const resultAsNpz = async (id) =>
  (await send(`/v1/jobs/${encodeURIComponent(id)}/result`, { accept: "application/x-npz" })).blob();

/** Yield the job at each change, until it has ended. */
export async function* watch(id) {
  const response = await send(`/v1/jobs/${encodeURIComponent(id)}/events`, { accept: "text/event-stream" });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r\n", "\n");
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trim());
      if (data.length === 0) continue;
      const document = JSON.parse(data.join("\n"));
      if (/^event: *error$/m.test(event)) throw new ApiError(document);
      yield document;
    }
  }
}

function makeForm(photo, request) {
  const parts = new FormData();
  parts.append("image", photo.blob, photo.name);
  parts.append("request", new Blob([JSON.stringify(request)], { type: "application/json" }));
  return parts;
}
