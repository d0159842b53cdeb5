// What came of an act, in words, at the foot of the page. Good news goes by itself; a failure stays until it is dismissed.

import { html } from './vendor/preact-htm.js';

export const Notices = ({ notices, dismiss }) => html`<div class="notices" role="status" aria-live="polite">
  ${notices.map(({ id, words, bad }) => html`<p key=${id} class=${bad ? 'notice bad' : 'notice'}>
    <span>${words}</span>
    <button type="button" class="quiet icon" aria-label="Dismiss" onClick=${() => dismiss(id)}>${'×'}</button>
  </p>`)}
</div>`;
