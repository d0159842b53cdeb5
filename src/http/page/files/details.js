// Everything about one job, in a panel beside the list (on a phone over it).
//
// What the list already shows of the job comes from the list's poll. The job itself is asked for when the panel opens and
// when its state has changed, for its history; a job that isn't on the list's page is asked for after each answer of the poll.

import { Component, html } from './vendor/preact-htm.js';
import { ask, jobPath } from './server.js';
import { keyOf, parseKey } from './place.js';
import { rowOf } from './ended.js';
import { address, count, duration, isNumber, rate, sentence, text } from './words.js';
import { Ago, When } from './time.js';
import { Chart } from './lines.js';
import { Ends, State, Why } from './row.js';
import { Acts } from './acts.js';
import { Refused } from './refused.js';
import { Verify } from './verify.js';

export class Details extends Component {
  state = { row: null, gone: false, wrong: '' };

  listed = (props = this.props) => props.data.jobs.find((row) => keyOf(row) === props.view.job);

  componentDidMount() {
    if (this.props.led) document.getElementById('details-title')?.focus({ preventScroll: true });
    this.load();
  }

  componentDidUpdate(before) {
    if (before.acts !== this.props.acts) return this.load();
    // What is at its end changes only by an act.
    if (before.beat === this.props.beat || (this.state.row?.ended && !this.listed())) return;
    const [then, now] = [this.listed(before), this.listed()];
    const says = (row) => row && [row.id, row.state, row.paused, row.since, row.error_count].join();
    if (!now || says(then) !== says(now)) this.load();
  }

  componentWillUnmount() { this.unmounted = true; }

  load = async () => {
    const asked = (this.asked = {});
    try {
      const row = await this.find();
      if (!this.unmounted && asked === this.asked) this.setState({ row, gone: false, wrong: '' });
    } catch (error) {
      if (this.unmounted || asked !== this.asked) return;
      this.setState(error.status === 404 ? { gone: true } : { wrong: error.message });
    }
  };

  // By its replication id; if that isn't known, by the document, which may have no job.
  async find() {
    const { id, database, doc_id } = parseKey(this.props.view.job);
    const known = this.listed()?.id ?? id;
    if (known) {
      try {
        return await ask('GET', jobPath(known));
      } catch (error) {
        // An edited document has another id now, a completed one has none.
        if (error.status !== 404 || !doc_id) throw error;
      }
    }
    const row = rowOf(await ask('GET', `../_scheduler/docs/${encodeURIComponent(database)}/${encodeURIComponent(doc_id)}`));
    if (!row.id || row.ended || row.id === known) return row;
    return ask('GET', jobPath(row.id));
  }

  close = () => this.props.app.go({ job: null, refused: false });

  // The acts answer with the job as it is now.
  acted = (row) => { if (row?.source) this.setState({ row }); this.props.app.refresh(); };

  render({ app, data, view }, { row: loaded, gone, wrong }) {
    const listed = this.listed();
    const row = listed ? { ...loaded, ...listed } : loaded;
    return html`<aside class="details" aria-labelledby="details-title">
      <header>
        <h2 id="details-title" tabindex="-1">${row ? html`<${Ends} source=${row.source} target=${row.target} />` : 'Replication'}</h2>
        <button type="button" class="quiet icon" aria-label="Close details" onClick=${this.close}>${'×'}</button>
      </header>
      <div class="body">
        ${gone && !listed && html`<p class="banner">This replication is gone: it has been cancelled or its document deleted, or you may not see it.</p>`}
        ${wrong && html`<p class="banner bad">${sentence(wrong)}</p>`}
        ${!row && !gone && !wrong && html`<p class="loading" role="status">Asking ...</p>`}
        ${row && html`
          <${Standing} row=${row} />
          ${!(gone && !listed) && html`<${Acts} app=${app} row=${row} admin=${data.server.admin} acted=${this.acted} close=${this.close} />`}
          ${!row.ended && hasTrend(row) && html`<div class="charts">
            <${Chart} title="Documents a second" values=${row.trend?.docs_per_second} step=${data.server.trend_seconds || 10} unit="/s" />
            <${Chart} title="Changes still to copy" values=${row.trend?.changes_pending} step=${data.server.trend_seconds || 10} />
          </div>`}
          ${row.id && !row.ended && (view.refused || row.doc_write_failures > 0) && html`
            <${Refused} key=${`refused ${row.id}`} row=${row} open=${view.refused} acted=${this.acted} />`}
          <${Counters} row=${row} />
          <${History} events=${loaded?.history} />
          ${row.id && !row.ended && html`<${Verify} key=${`verify ${row.id}`} id=${row.id} />`}`}
      </div>
    </aside>`;
  }
}

const hasTrend = ({ trend }) => Object.values(trend ?? {}).some((values) => values?.some(isNumber));

const Standing = ({ row }) => html`<div class="standing">
  <${State} row=${row} />
  <${Why} row=${row} />
</div>`;

function Counters({ row }) {
  const facts = [
    ['Source', html`<${Where} at=${row.source} />`],
    ['Target', html`<${Where} at=${row.target} />`],
    ['Document', row.doc_id && `${row.doc_id} in ${row.database}`],
    ['Owner', row.owner],
    ['Runs', row.continuous == null ? null : row.continuous ? 'for as long as both are there' : 'once'],
    ['Documents a second', isNumber(row.docs_per_second) && rate(row.docs_per_second)],
    ['Changes still to copy', isNumber(row.changes_pending) && count(row.changes_pending)],
    ['Lag', isNumber(row.lag_seconds) && duration(row.lag_seconds)],
    ['Documents read', isNumber(row.docs_read) && count(row.docs_read)],
    ['Documents written', isNumber(row.docs_written) && count(row.docs_written)],
    ['Refused so far', isNumber(row.doc_write_failures) && count(row.doc_write_failures)],
    ['Last success', row.last_success && html`<${Ago} at=${row.last_success} />`],
    ['Replication id', row.id && html`<code>${row.id}</code>`],
  ];
  return html`<section aria-labelledby="counters-title"><h3 id="counters-title">Facts</h3>
    <dl class="facts">${facts.filter(([, value]) => value).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
  </section>`;
}

function Where({ at }) {
  const { full, web } = address(at);
  return web ? html`<a href=${full} rel="noreferrer">${full}</a>` : full;
}

const EVENTS = { added: 'Added', started: 'Started', stopped: 'Stopped', crashed: 'Crashed' };

function History({ events }) {
  if (!events?.length) return null;
  return html`<section aria-labelledby="history-title"><h3 id="history-title">History</h3>
    <ol class="history" role="list">${events.map((event, at) => html`<li key=${`${event.timestamp} ${event.type} ${events.length - at}`}>
      <span class=${event.type === 'crashed' ? 'bad' : ''}>${EVENTS[event.type] ?? text(event.type)}</span>
      <span class="note"><${Ago} at=${event.timestamp} />, <${When} at=${event.timestamp} /></span>
      ${event.reason && html`<p>${sentence(text(event.reason))}</p>`}
    </li>`)}</ol>
  </section>`;
}
