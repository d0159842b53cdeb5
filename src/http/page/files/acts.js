// What may be done to a job: pause, resume, try now, edit, and cancel it or delete its document.
//
// Documents are for server admins to edit and delete; the rest anybody may do with his own jobs, and others he doesn't see.

import { html, useState } from './vendor/preact-htm.js';
import { ask, documentPath, jobPath } from './server.js';
import { Confirm } from './dialog.js';
import { address } from './words.js';

const NO_PAUSE = 'Only a replication that is kept as a document can be paused. Cancel this one instead.';

export function Acts({ app, row, admin, acted, close }) {
  const [busy, work] = useState(null);
  const [confirming, confirm] = useState(false);
  const kept = row.doc_id != null;
  const name = kept ? row.doc_id : `${address(row.source).name} to ${address(row.target).name}`;

  async function run(act, words, request) {
    if (busy) return;
    work(act);
    try {
      const answer = await request();
      app.notice(words);
      acted(answer);
    } catch (error) {
      app.notice(`${name}: ${error.message}`, true);
      acted(null);
    }
    work(null);
  }

  const post = (action) => () => ask('POST', jobPath(row.id), { body: { action } });

  async function remove() {
    if (!kept) return ask('POST', '../_replicate', { body: { replication_id: row.id, cancel: true } });
    const path = documentPath(row.database, row.doc_id);
    const { _rev } = await ask('GET', path);
    return ask('DELETE', `${path}?rev=${encodeURIComponent(_rev)}`);
  }

  const mayRemove = admin || !kept;
  const runs = row.id && !row.ended;
  return html`<div class="acts" role="group" aria-label="What may be done">
    ${runs && (row.paused
      ? html`<${Act} act="resume" busy=${busy} press=${() => run('resume', `${name} goes on.`, post('resume'))}>Resume<//>`
      : html`<${Act} act="pause" busy=${busy} barred=${!kept && NO_PAUSE} press=${() => run('pause', `${name} is paused.`, post('pause'))}>Pause<//>`)}
    ${runs && !row.paused && row.state !== 'running' && html`
      <${Act} act="retry" busy=${busy} press=${() => run('retry', `${name} is being tried.`, post('retry_now'))}>Try now<//>`}
    ${admin && kept && html`<button type="button" onClick=${() => app.setState({ form: { edit: row } })}>Edit</button>`}
    ${mayRemove && (kept || row.id) && html`
      <button type="button" class="danger" onClick=${() => confirm(true)}>${kept ? 'Delete document' : 'Cancel'}</button>`}
    ${runs && !kept && !row.paused && html`<p id="no-pause" class="note">${NO_PAUSE}</p>`}
    ${confirming && html`<${Confirm} title=${kept ? 'Delete the document?' : 'Cancel the replication?'} yes=${kept ? 'Delete document' : 'Cancel replication'}
      close=${() => confirm(false)}
      act=${() => run('remove', kept ? `${name} is deleted.` : `${name} is cancelled.`, async () => { await remove(); close(); })}>
      <p>${kept ? html`<b>${row.doc_id}</b> in ${row.database} describes this replication. Without it the replication ends.`
        : html`<b>${name}</b> ends, and nothing starts it again by itself.`}</p>
      <p>What has been copied stays where it is.</p>
    <//>`}
  </div>`;
}

// A button keeps the focus while its act runs, so it is never really disabled.
function Act({ act, busy, barred, press, children }) {
  return html`<button type="button" aria-disabled=${Boolean(busy || barred)} aria-busy=${busy === act} title=${barred || null}
    aria-describedby=${barred ? 'no-pause' : null} onClick=${() => !barred && press()}>${children}</button>`;
}
