// Asks for the list of jobs again and again, as cheaply as it can be had.
//
// One request at a time, `pause` apart, and none while nobody looks at the tab. The last ETag goes along, so an
// idle server answers 304 and nothing is drawn anew. A server that doesn't answer is asked after growing pauses.

import { failure, send } from './server.js';

const FIRST_PAUSE_MS = 2000;
const LONGEST_PAUSE_MS = 60_000;

// path() is what to ask for. heard(data, path) gets each new answer, quiet() each 304,
// trouble(error, nextTry) each failure; nextTry is a time of this browser's clock, or null if it is not tried again.
export function poll({ path, heard, quiet, trouble }) {
  let timer, running, etag, etagOf, failures = 0, pause = FIRST_PAUSE_MS;

  async function once() {
    clearTimeout(timer);
    running?.abort();
    const mine = (running = new AbortController());
    const asked = path();
    try {
      const headers = etag && etagOf === asked ? { 'if-none-match': etag } : {};
      const { etag: fresh, data } = await send('GET', asked, { headers, signal: mine.signal, read });
      if (mine.signal.aborted) return;
      failures = 0;
      if (!data) {
        quiet();
      } else {
        [etag, etagOf] = [fresh, asked];
        pause = Math.max(500, data.server?.refresh_ms || FIRST_PAUSE_MS);
        heard(data, asked);
      }
      later(pause);
    } catch (error) {
      if (mine.signal.aborted) return;
      etag = null;
      // Whoever has to log in first asks again by now().
      if (error.status === 401) return trouble(error, null);
      const wait = Math.min(FIRST_PAUSE_MS * 2 ** failures++, LONGEST_PAUSE_MS);
      trouble(error, Date.now() + wait);
      later(wait);
    }
  }

  // No data if nothing has changed.
  async function read(response) {
    if (response.status === 304) return {};
    if (!response.ok) throw await failure(response);
    return { etag: response.headers.get('etag'), data: await response.json() };
  }

  function later(wait) {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(once, wait);
  }

  function seen() {
    if (document.hidden) clearTimeout(timer);
    else once();
  }

  document.addEventListener('visibilitychange', seen);
  if (!document.hidden) once();
  return {
    now: once,
  };
}
