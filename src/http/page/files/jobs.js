// The list of jobs: failing ones first, fifty on a page.
//
// It is a list, not a table, so that it reads well on a phone and aloud: each figure has its own label, which is only
// hidden from sight where a line of headings stands above. Whatever has the focus keeps it when the rows change places.

import { Component, html } from './vendor/preact-htm.js';
import { count, some } from './words.js';
import { keyOf } from './place.js';
import { Row } from './row.js';

export const PAGE = 50;
const TYPING_MS = 250;
const HEADINGS = ['State', 'Source and target', 'Rate', 'Backlog', 'Lag', 'Last success', 'Refused'];
const ENDED_HEADINGS = ['State', 'Source and target', '', '', '', 'Written', 'Refused'];

export class Jobs extends Component {
  state = { typed: null, said: '' };

  // Chrome takes the focus from an element that moves in the document.
  getSnapshotBeforeUpdate() {
    const focused = document.activeElement;
    return document.getElementById('jobs')?.contains(focused) ? focused : null;
  }

  componentDidUpdate(before, _, focused) {
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
    const { view, dataOf, data } = this.props;
    const { typed } = this.state;
    // The search was changed elsewhere.
    if (typed !== null && before.view.search !== view.search && view.search !== typed.trim()) this.setState({ typed: null });
    // Said aloud when another list was asked for, not at each poll.
    if (before.dataOf !== dataOf) this.setState({ said: `${some(data.total, 'job')} found` });
  }

  componentWillUnmount() { clearTimeout(this.typing); }

  type = (event) => {
    const typed = event.target.value;
    this.setState({ typed });
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.props.app.go({ search: typed.trim(), page: 1 }, true), TYPING_MS);
  };

  render({ app, data, view, late, ended, endedState }, { typed, said }) {
    const rows = endedState ? ended.docs : data.jobs;
    const total = endedState ? ended[endedState] ?? 0 : data.total;
    const all = Object.values(data.states).reduce((sum, n) => sum + n, 0);
    const filtered = view.states.length > 0 || view.search !== '';
    return html`<section class="jobs" id="jobs" aria-labelledby="jobs-title">
      <div class="bar">
        <h2 id="jobs-title" tabindex="-1">${endedState === 'failed' ? 'Failed documents' : endedState ? 'Completed documents' : 'Jobs'}</h2>
        <p class="note">${filtered && !endedState ? `${count(total)} of ${count(all)}` : count(total)}</p>
        <p class="unseen" role="status">${endedState ? '' : said}</p>
        ${!endedState && html`<form role="search" onSubmit=${(event) => event.preventDefault()}>
          <label class="unseen" for="search">Search jobs</label>
          <input id="search" type="search" placeholder="Search source, target, document" value=${typed ?? view.search} onInput=${this.type}
            autocomplete="off" autocapitalize="none" spellcheck=${false} />
        </form>`}
      </div>
      ${rows?.length > 0 && html`
        <div class="headings" aria-hidden="true">${(endedState ? ENDED_HEADINGS : HEADINGS).map((heading) => html`<span>${heading}</span>`)}</div>
        <ol class=${late && !endedState ? 'rows late' : 'rows'} role="list" aria-busy=${String(late && !endedState)}>
          ${rows.map((row) => html`<${Row} key=${keyOf(row)} app=${app} row=${row} view=${view} open=${view.job === keyOf(row)} />`)}
        </ol>`}
      ${rows && !rows.length && html`<${Nothing} app=${app} filtered=${filtered} past=${view.page > 1 && total > 0} ended=${endedState} admin=${data.server.admin} />`}
      ${!rows && html`<p class="loading" role="status">${ended.error ?? 'Asking ...'}</p>`}
      <${Pager} app=${app} page=${view.page} total=${total} />
    </section>`;
  }
}

function Nothing({ app, filtered, past, ended, admin }) {
  if (past) return html`<div class="nothing"><p>The list has become shorter: nothing is left on this page.</p></div>`;
  if (filtered) {
    return html`<div class="nothing"><p>${ended ? `No document has ${ended}.` : 'No job matches.'}</p>
      <button type="button" onClick=${() => app.go({ states: [], search: '', page: 1 })}>Show all jobs</button></div>`;
  }
  return html`<div class="nothing">
    <h3>Nothing replicates yet</h3>
    <p>A replication copies the documents of one database to another, once or for as long as both are there.
    ${admin ? ' Those that clients ask for and those that documents in _replicator describe are listed here.' : ' Those that you have asked for are listed here.'}</p>
    <button type="button" onClick=${() => app.setState({ form: {} })}>Start the first one</button>
  </div>`;
}

function Pager({ app, page, total }) {
  const last = Math.max(1, Math.ceil(total / PAGE));
  if (last === 1 && page === 1) return null;
  function go(to) {
    if (to < 1 || to > last) return;
    app.go({ page: to });
    document.getElementById('jobs').scrollIntoView({ block: 'start' });
  }
  const words = page > last ? `Page ${count(page)} of ${count(last)}`
    : `${count((page - 1) * PAGE + 1)} to ${count(Math.min(page * PAGE, total))} of ${some(total, 'entry', 'entries')}`;
  return html`<nav class="pager" aria-label="Pages of the list">
    <button type="button" aria-disabled=${page <= 1} onClick=${() => go(Math.min(page - 1, last))}>Previous</button>
    <span>${words}</span>
    <button type="button" aria-disabled=${page >= last} onClick=${() => go(page + 1)}>Next</button>
  </nav>`;
}
