// One job in the list: what it copies, how it is, and if it fails, why and what happens next.

import { html } from './vendor/preact-htm.js';
import { address, count, duration, isFailing, rate, sentence, shortCount, some, stateOf, text } from './words.js';
import { keyOf, link } from './place.js';
import { Ago, Since, Until } from './time.js';
import { Line } from './lines.js';
import { Glyph } from './glyphs.js';

export function Row({ app, row, view, open }) {
  const job = keyOf(row);
  const href = link(view, { job, refused: false });
  const failing = isFailing(row.state);
  // The whole row opens the job, but not when its text is being selected or something in it is pressed.
  function press(event) {
    if (event.target.closest('a, button') || !getSelection().isCollapsed) return;
    app.go({ job, refused: false });
  }
  return html`<li class=${`job ${failing ? 'failing' : ''} ${open ? 'open' : ''}`} onClick=${press}>
    <${State} row=${row} />
    <div class="what">
      <h3><a href=${href} data-job=${job} aria-current=${open ? 'true' : null}><${Ends} source=${row.source} target=${row.target} /></a></h3>
      <${Meta} row=${row} />
    </div>
    <${Why} row=${row} />
    ${row.ended ? html`<dl class="figures ended">
      <div><dt>Written</dt><dd>${shortCount(row.docs_written)}</dd></div>
      <div><dt>Refused</dt><dd>${shortCount(row.doc_write_failures)}</dd></div>
    </dl>` : html`<dl class="figures">
      <div class=${blank(row.docs_per_second, 'drawn')}><dt>Rate</dt><dd><span>${rate(row.docs_per_second)}</span><${Line} values=${row.trend?.docs_per_second} /></dd></div>
      <div class=${blank(row.changes_pending, 'drawn')}><dt>Backlog</dt><dd><span title=${count(row.changes_pending)}>${shortCount(row.changes_pending)}</span><${Line} values=${row.trend?.changes_pending} /></dd></div>
      <div class=${blank(row.lag_seconds)}><dt>Lag</dt><dd>${duration(row.lag_seconds)}</dd></div>
      <div><dt>Last success</dt><dd><${Ago} at=${row.last_success} none="never" /></dd></div>
      <div><dt>Refused</dt><dd>${row.doc_write_failures > 0 && row.id
        ? html`<button type="button" class="refused" onClick=${() => app.go({ job, refused: true })}
            aria-label="${some(row.doc_write_failures, 'refused document')}: list">${shortCount(row.doc_write_failures)}</button>`
        : shortCount(row.doc_write_failures)}</dd></div>
    </dl>`}
  </li>`;
}

// Only columns need a place for what isn't known.
const blank = (value, name = '') => (value == null ? `${name} blank` : name);

// The reason in words, and what happens next.
export function Why({ row }) {
  const failing = isFailing(row.state);
  const next = [
    failing && !row.ended && row.error_count > 1 && `failed ${count(row.error_count)} times in a row`,
    row.next_try && html`next try <${Until} at=${row.next_try} />`,
  ].filter(Boolean);
  if (!row.reason && !next.length) return null;
  return html`<p class="why">
    ${row.reason && html`<span class=${failing ? 'reason' : 'note'}>${sentence(text(row.reason))}</span>`} ${' '}
    <span class="note next">${next.map((part, at) => html`${at > 0 && ', '}${part}`)}</span>
  </p>`;
}

export function State({ row }) {
  const { word, glyph, tone } = stateOf(row);
  return html`<div class=${`state ${tone}`}>
    <span class="word" title=${`CouchDB's word: ${row.state}`}><${Glyph} name=${glyph} /> ${word}</span>
    ${row.since && (isFailing(row.state) || row.paused || row.state === 'pending') && html`<span class="note">for <${Since} at=${row.since} /></span>`}
  </div>`;
}

// Source and target; a server that they share is named once, below.
export function Ends({ source, target }) {
  const [from, to] = [address(source), address(target)];
  const shared = from.host && from.host === to.host;
  return html`<${End} end=${from} bare=${shared} /><span class="arrow" aria-hidden="true">${' → '}</span><span class="unseen"> to </span><${End} end=${to} bare=${shared} />`;
}

const End = ({ end, bare }) => html`<span class="end" title=${end.full}>${!bare && end.host && html`<span class="host">${end.host}/</span>`}${end.name}</span>`;

function Meta({ row }) {
  const [from, to] = [address(row.source), address(row.target)];
  const parts = [
    from.host && from.host === to.host && `on ${from.host}`,
    row.doc_id ? (row.database === '_replicator' || !row.database ? row.doc_id : `${row.database}/${row.doc_id}`) : 'no document',
    row.owner && `of ${row.owner}`,
    row.continuous === false && 'once',
  ].filter(Boolean);
  return html`<p class="meta">${parts.map((part) => html`<span>${part}</span>`)}</p>`;
}
