// What the page asks its server, and what may go wrong with that.
//
// The page stands at /_couchrep/, so `../` is the server's root: the page also works below a prefix of a proxy.
// The session's cookie goes along by itself. An answer that isn't 2xx is thrown as a ServerError with CouchDB's
// error and reason; no answer at all is a ServerError with status 0.

const PATIENCE_MS = 30_000;

export class ServerError extends Error {
  constructor(status, error, reason) {
    super(reason || error || `the server answered ${status}`);
    this.status = status;
    this.error = error;
  }
}

// How far the server's clock is ahead of this browser's. Times of the server are compared with the server's clock.
let ahead = 0;
export const now = () => Date.now() + ahead;

function compareClocks(response) {
  const date = Date.parse(response.headers.get('date'));
  // The header has whole seconds, so a small difference says nothing.
  if (date) ahead = Math.abs(date - Date.now()) > 3000 ? date - Date.now() : 0;
}

// Sends a request and returns what `read` makes of the Response, whatever its status; reading has to be done in time too.
// `patience` 0 waits for as long as it takes.
export async function send(method, path, { body, headers, signal, patience = PATIENCE_MS, read = (response) => response } = {}) {
  const stop = new AbortController();
  signal?.addEventListener('abort', () => stop.abort());
  if (signal?.aborted) stop.abort();
  const timer = patience && setTimeout(() => stop.abort(), patience);
  try {
    const response = await fetch(path, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: { accept: 'application/json', ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      cache: 'no-store',
      credentials: 'same-origin',
      signal: stop.signal,
    });
    compareClocks(response);
    return await read(response);
  } catch (error) {
    if (signal?.aborted || error instanceof ServerError) throw error;
    if (error instanceof SyntaxError) throw new ServerError(200, 'bad_answer', 'the answer is not JSON: is something else at this address?');
    const slow = error.name === 'AbortError';
    throw new ServerError(0, 'unreachable', slow ? `no answer in ${patience / 1000} seconds` : "couchrep can't be reached");
  } finally {
    clearTimeout(timer);
  }
}

// The error that an answer tells.
export async function failure(response) {
  let told = {};
  try {
    told = await response.json();
  } catch (error) {
    // A proxy's page is no JSON.
    if (!(error instanceof SyntaxError)) throw error;
  }
  return new ServerError(response.status, String(told?.error ?? ''), String(told?.reason ?? ''));
}

// Sends a request and returns the JSON of its answer.
export async function ask(method, path, options) {
  return send(method, path, { ...options, read: json });
}

async function json(response) {
  if (!response.ok) throw await failure(response);
  return response.json();
}

export const documentPath = (database, id) => `../${encodeURIComponent(database)}/${encodeURIComponent(id)}`;
export const jobPath = (id) => `jobs/${encodeURIComponent(id)}`;
