// The documents that the target refused, each with its reason, and a second try for them.

import { html, useEffect, useRef, useState } from './vendor/preact-htm.js';
import { ask, jobPath } from './server.js';
import { count, sentence, some, text } from './words.js';

const PAGE = 50;

export function Refused({ row, open, acted }) {
  const [shown, show] = useState(open);
  const [list, fill] = useState(null);
  const [skip, move] = useState(0);
  const [wrong, say] = useState('');
  const [busy, work] = useState(false);
  const [result, tell] = useState('');
  const title = useRef();
  const failures = row.doc_write_failures ?? 0;

  useEffect(() => {
    if (!open) return;
    show(true);
    title.current.focus();
  }, [open]);

  async function load() {
    try {
      const path = `../_replicate/${encodeURIComponent(row.id)}/failures?limit=${PAGE}&skip=${skip}`;
      fill(await ask('GET', path));
      say('');
    } catch (error) {
      say(error.message);
    }
  }

  useEffect(() => { if (shown) load(); }, [shown, skip, failures]);

  async function retry() {
    if (busy) return;
    work(true);
    tell('');
    try {
      const done = await ask('POST', jobPath(row.id), { body: { action: 'retry_failures' }, patience: 0 });
      const [written, again] = [done.docs_written ?? 0, done.doc_write_failures ?? 0];
      tell(!written && !again ? 'Nothing is left to try.'
        : again ? `${some(written, 'document')} written, ${count(again)} refused again.` : `${some(written, 'document')} written; none was refused.`);
      acted(null);
    } catch (error) {
      tell(sentence(error.message));
    }
    work(false);
    move(0);
    await load();
  }

  const total = list?.total ?? failures;
  return html`<section class="refusals" aria-labelledby="refused-title">
    <h3 id="refused-title" ref=${title} tabindex="-1">Refused documents</h3>
    ${!shown && html`<p class="note">${failures ? `${some(failures, 'document')} couldn't be copied so far: refused by the target, or not given by the source.` : 'None that is known.'}</p>
      ${failures > 0 && html`<button type="button" onClick=${() => show(true)}>List them</button>`}`}
    ${shown && !list && !wrong && html`<p class="loading">Asking ...</p>`}
    ${wrong && html`<p class="wrong">${sentence(wrong)}</p>`}
    ${shown && list && html`
      <p class="note">${total ? `${some(total, 'document')} not written to the target.` : 'None is left.'}</p>
      ${total > 0 && html`<button type="button" aria-disabled=${busy} aria-busy=${busy} onClick=${retry}>${busy ? 'Trying ...' : 'Try them again'}</button>`}`}
    <p role="status" class="result">${result}</p>
    ${shown && list?.failures.length > 0 && html`<ul class="documents" role="list">
      ${list.failures.map((one) => html`<li key=${`${one.id} ${one.rev}`}>
        <b>${text(one.id)}</b> <code>${text(one.rev)}</code>
        <p>${text(one.error)}${one.error && one.reason ? ': ' : ''}${text(one.reason)}</p>
      </li>`)}
    </ul>`}
    ${shown && total > PAGE && html`<nav class="pager" aria-label="Pages of refused documents">
      <button type="button" aria-disabled=${skip === 0} onClick=${() => move(Math.max(0, skip - PAGE))}>Previous</button>
      <span>${count(skip + 1)} to ${count(Math.min(skip + PAGE, total))} of ${count(total)}</span>
      <button type="button" aria-disabled=${skip + PAGE >= total} onClick=${() => skip + PAGE < total && move(skip + PAGE)}>Next</button>
    </nav>`}
  </section>`;
}
