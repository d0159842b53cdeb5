// One end of a replication in the form: its address, its credentials, and what the check has found there.

import { html } from './vendor/preact-htm.js';
import { sameServer, split } from './draft.js';
import { sentence, some, text } from './words.js';
import { Glyph } from './glyphs.js';

export function EndFields({ side, end, found, fault, checking, change }) {
  const id = `form-${side}`;
  const kept = end.kept?.password != null && sameServer(end) && end.user === end.kept.user;
  // Credentials that were pasted with the URL go to their own fields, where the password isn't shown.
  const pasted = () => {
    const { user, url, password } = split(end.url.trim());
    if (user !== undefined) change({ url, user, password });
  };
  return html`<fieldset>
    <legend>${side === 'source' ? 'Source' : 'Target'}</legend>
    <label>URL or name of a database
    <input id=${id} value=${end.url} onInput=${(event) => change({ url: event.target.value })} onBlur=${pasted} required
      inputmode="url" autocapitalize="none" spellcheck=${false} autocomplete="off" placeholder="https://couch.example.com/database"
      aria-invalid=${String(Boolean(fault || (found && !found.ok)))} aria-describedby=${`${id}-found`} /></label>
    <div class="pair">
      <label>User name <small>if it needs one</small>
        <input value=${end.user} onInput=${(event) => change({ user: event.target.value })} autocapitalize="none" spellcheck=${false} autocomplete="off" /></label>
      <label>Password
        <input type="password" value=${end.password} onInput=${(event) => change({ password: event.target.value })} autocomplete="new-password"
          placeholder=${kept ? 'unchanged' : ''} /></label>
    </div>
    <p id=${`${id}-found`} class="found" role="status">${fault ? html`<span class="wrong"><${Glyph} name="warning" /> ${fault}</span>`
      : checking ? html`<span class="note">Checking ...</span>` : found && html`<${Found} side=${side} found=${found} />`}</p>
  </fieldset>`;
}

function Found({ side, found }) {
  if (!found.ok) return html`<span class="wrong"><${Glyph} name="warning" /> ${advice(side, found) ?? said(found)}</span>
    ${advice(side, found) && html`<span class="note">${said(found)}</span>`}`;
  const words = found.missing ? 'Not there yet; it will be created.'
    : found.doc_count == null ? 'Found.' : `Found, with ${some(found.doc_count, 'document')}, deleted ones included.`;
  return html`<span class="good"><${Glyph} name="done" /> ${words}</span>`;
}

const said = ({ error, reason }) => sentence(text(reason ?? error)) || 'Something is wrong here.';

// What may be done about it; the server's own reason follows.
function advice(side, { error, missing }) {
  if (missing || error === 'db_not_found' || error === 'not_found') {
    return `There is no such database.${side === 'target' ? ' Let it be created, or mend the name.' : ''}`;
  }
  if (error === 'unauthorized') return 'The user name or the password is missing or wrong.';
  if (error === 'forbidden') return 'This user may not do that there.';
  return null;
}
