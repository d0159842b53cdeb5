// Compares source and target, revision by revision, and says what is missing.
//
// The server streams a line of JSON now and then and a last one with the result. To end the request is to stop it.

import { html, useEffect, useRef, useState } from './vendor/preact-htm.js';
import { failure, send } from './server.js';
import { count, sentence, some, text } from './words.js';

const SHOWN = 100;

// Calls `heard` with each line of a stream of JSON lines.
export async function lines(stream, heard) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    const parts = (rest + (value ?? '')).split('\n');
    rest = done ? '' : parts.pop();
    for (const part of parts) if (part.trim()) heard(JSON.parse(part));
    if (done) return;
  }
}

export function Verify({ id }) {
  const [progress, move] = useState(null);
  const [result, tell] = useState(null);
  const running = useRef(null);
  useEffect(() => () => running.current?.abort(), []);

  async function start() {
    const stop = (running.current = new AbortController());
    tell(null);
    move({ compared: 0, missing: 0 });
    let last = null;
    try {
      const response = await send('POST', 'verify', { body: { id }, signal: stop.signal, patience: 0 });
      if (!response.ok) throw await failure(response);
      await lines(response.body, (line) => {
        last = line;
        if (!('ok' in line) && !line.error) move(line);
      });
      tell(last?.error ? { wrong: last.reason || last.error } : 'ok' in (last ?? {}) ? last : { wrong: 'the comparison ended before its result' });
    } catch (error) {
      if (!stop.signal.aborted) tell({ wrong: error.message });
    }
    if (running.current === stop) running.current = null;
    move(null);
  }

  function stop() {
    running.current?.abort();
    running.current = null;
    move(null);
    tell({ stopped: true });
  }

  return html`<section class="verify" aria-labelledby="verify-title">
    <h3 id="verify-title">Verify</h3>
    ${!progress && !result && html`<p class="note">Compares every document of both ends. It reads much and writes nothing.</p>`}
    ${progress && html`<p>${some(progress.compared, 'document')} compared, ${some(progress.missing, 'difference')} so far.</p>`}
    <div role="status">${result && html`<${Result} result=${result} />`}</div>
    ${progress ? html`<button type="button" key="verify" onClick=${stop}>Stop</button>`
      : html`<button type="button" key="verify" onClick=${start}>${result ? 'Compare again' : 'Compare both ends'}</button>`}
  </section>`;
}

function Result({ result }) {
  if (result.stopped) return html`<p class="note">Stopped.</p>`;
  if (result.wrong) return html`<p class="wrong">${sentence(result.wrong)}</p>`;
  const differences = result.differences ?? [];
  if (result.ok) return html`<p class="good">Nothing is missing: ${some(result.compared, 'document')} compared.</p>`;
  const missing = result.missing ?? differences.length;
  return html`<p class="wrong">${some(missing, 'difference')} in ${some(result.compared, 'document')}.</p>
    <ul class="documents" role="list">${differences.slice(0, SHOWN).map((one) => html`<li>
      <b>${text(one.id)}</b> <code>${text(one.rev)}</code><p>${text(one.problem)}${one.attachment && `: attachment ${text(one.attachment)}`}</p></li>`)}</ul>
    ${missing > Math.min(SHOWN, differences.length) && html`<p class="note">and ${count(missing - Math.min(SHOWN, differences.length))} more</p>`}`;
}
