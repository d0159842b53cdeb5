// The top of the page: which couchrep this is and who looks at it; below, what an operator must know before all else.

import { html } from './vendor/preact-htm.js';
import { Since, useClock } from './time.js';
import { address, duration, sentence } from './words.js';
import { Glyph } from './glyphs.js';

export function Header({ app, server }) {
  const beside = server?.couchdb && address(server.couchdb);
  return html`<header class="top">
    <div class="brand">
      <h1><img src="icon.svg" alt="" width="24" height="24" /> couchrep</h1>
      ${server && html`<p>
        <span title=${server.node}>${server.version}</span>
        <span>${beside ? html`beside CouchDB at ${beside.web ? html`<a href=${beside.full} rel="noreferrer">${beside.host}</a>` : beside.full}`
          : server.beside_couchdb ? 'beside a CouchDB' : 'with databases of its own'}</span>
      </p>`}
    </div>
    ${server && html`<div class="who">
      <button type="button" class="primary" onClick=${() => app.setState({ form: {} })}>New replication</button>
      ${server.name != null && html`<span class="name">${server.name}${!server.admin && html` <span class="note">your own replications only</span>`}</span>
        <button type="button" onClick=${app.logout}>Log out</button>`}
      ${server.name == null && !server.admin && html`<button type="button" onClick=${() => app.setState({ login: 'wished' })}>Log in</button>`}
    </div>`}
  </header>`;
}

const RUNNERS = {
  couchdb: 'CouchDB itself runs the documents of _replicator. Their jobs are in Fauxton, not here; here are those that were asked for at _replicate.',
  'another couchrep': 'Another couchrep runs the documents of _replicator. Their jobs are on its page, not here.',
  nobody: 'Nobody runs the documents of _replicator at the moment. Replications that were kept as documents stand still.',
};

export function Banners({ app, data, down }) {
  const server = data?.server;
  const runner = server && RUNNERS[server.documents];
  return html`
    <div role="status" aria-live="polite">${down && html`<${Down} app=${app} down=${down} stale=${Boolean(data)} />`}</div>
    ${server?.admin && server.name == null && html`<p class="banner warn"><${Glyph} name="warning" />
      <span><b>There are no admins, so everybody is one.</b> Whoever reaches this server may read and change everything.
      Name an admin in the configuration before others can reach it.</span></p>`}
    ${runner && html`<p class=${server.documents === 'nobody' ? 'banner warn' : 'banner'}>
      <${Glyph} name=${server.documents === 'nobody' ? 'warning' : 'waiting'} /><span>${runner}</span></p>`}`;
}

function Down({ app, down, stale }) {
  const { error } = down;
  return html`<div class="banner bad"><${Glyph} name="cross" />
    <span><b>${error.status ? `couchrep answers with an error (${error.status}).` : "couchrep can't be reached."}</b>
    ${' '}${error.status ? sentence(error.message) : ''}${' '}
    <span aria-live="off">${error.status ? 'For' : 'Away for'} ${' '}<${Since} at=${down.since} />; <${NextTry} at=${down.nextTry} />.</span>
    ${stale && ' What is shown below is from before.'}</span>
    <button type="button" onClick=${() => app.poll.now()}>Try now</button></div>`;
}

// Of this browser's clock, not of the server's.
function NextTry({ at }) {
  return html`<span>${useClock(() => {
    const left = Math.ceil((at - Date.now()) / 1000);
    return left > 0 ? `it is asked again in ${duration(left)}` : 'it is being asked';
  })}</span>`;
}
