// The state of everything in one look: how many jobs in each state, how fast, how far behind, and which servers fail.

import { html } from './vendor/preact-htm.js';
import { address, count, rate, sentence, shortCount, some, STATES, text } from './words.js';
import { link } from './place.js';
import { Until } from './time.js';
import { Line } from './lines.js';
import { Glyph } from './glyphs.js';

export function Overview({ app, data, view, ended, endedState }) {
  return html`<section class="overview" aria-label="Overview">
    <${Counts} app=${app} data=${data} view=${view} ended=${ended} endedState=${endedState} />
    <div class="panels">
      <${Total} title="Documents a second" value=${rate(data.docs_per_second)} values=${data.trend?.docs_per_second} />
      <${Total} title="Changes still to copy" value=${shortCount(data.changes_pending)} values=${data.trend?.changes_pending}
        note=${data.doc_write_failures > 0 && `${some(data.doc_write_failures, 'document')} refused`} />
      <${Origins} origins=${data.origins ?? []} total=${data.origins_total ?? 0} view=${view} />
    </div>
  </section>`;
}

// Each count is a filter that is on or off. Failed and completed documents have a list of their own, which can't be mixed with jobs.
function Counts({ app, data, view, ended, endedState }) {
  const of = (state) => Math.max(data.states[state] ?? 0, (data.server.admin && ended[state]) || 0);
  const all = Object.values(data.states).reduce((sum, n) => sum + n, 0);
  const alone = (state) => data.server.admin && ['failed', 'completed'].includes(state);
  function toggle(state) {
    const on = view.states.includes(state);
    const others = view.states.filter((other) => other !== state && !alone(other));
    app.go({ states: on ? others : alone(state) ? [state] : [...others, state], page: 1 });
  }
  const more = {
    running: data.caught_up > 0 && `${shortCount(data.caught_up)} up to date`,
    pending: data.paused > 0 && `${shortCount(data.paused)} paused`,
  };
  return html`<div class="counts" role="group" aria-label="Filter by state">
    <${Count} word="All jobs" n=${all} on=${!view.states.length} press=${() => app.go({ states: [], page: 1 })} />
    ${STATES.map(({ state, word, failing, means }) => html`<${Count} key=${state} word=${word} means=${means} n=${of(state)} more=${more[state]}
      bad=${failing && of(state) > 0} on=${view.states.includes(state)} press=${() => toggle(state)} />`)}
  </div>`;
}

function Count({ word, n, more, bad, on, press, means }) {
  return html`<button type="button" class=${`count ${bad ? 'bad' : ''} ${n ? '' : 'none'}`} aria-pressed=${String(on)} title=${means} onClick=${press}>
    <span class="n">${bad && html`<${Glyph} name="warning" />`}${shortCount(n)}</span>
    <span class="word">${word}</span>
    <span class="more">${more}</span>
  </button>`;
}

const Total = ({ title, value, values, note }) => html`<section class="panel total" aria-label=${title}>
  <h2>${title}</h2>
  <p><b>${value}</b>${note && html` <span class="note">${note}</span>`}</p>
  <${Line} values=${values} width=${240} height=${44} flat />
</section>`;

const SICK_SHOWN = 3;

function Origins({ origins, total, view }) {
  const sick = origins.filter((origin) => origin.shut || origin.failing > 0);
  const well = origins.filter((origin) => !sick.includes(origin));
  const unlisted = Math.max(0, total - origins.length);
  const list = (these, Item, props) => html`<ul role="list">${these.map((origin) => html`<${Item} key=${origin.origin} origin=${origin} view=${view} ...${props} />`)}</ul>`;
  return html`<section class="panel origins" aria-label="Servers">
    <h2>Servers</h2>
    ${!origins.length && html`<p class="note">None yet: the servers that replications read and write are listed here.</p>`}
    ${sick.length > 0 && list(sick.slice(0, SICK_SHOWN), Sick)}
    ${sick.length > SICK_SHOWN && html`<details><summary class="bad">${count(sick.length - SICK_SHOWN)} more with failing jobs</summary>
      ${list(sick.slice(SICK_SHOWN), Sick)}</details>`}
    ${well.length > 0 && (sick.length || well.length > 4 || unlisted
      ? html`<details><summary><${Glyph} name="done" /> ${some(well.length + unlisted, 'server')} in order</summary>
          ${list(well, Well)}${unlisted > 0 && html`<p class="note">and ${count(unlisted)} more</p>`}</details>`
      : list(well, Well, { sign: true }))}
    ${!well.length && unlisted > 0 && html`<p class="note">and ${some(unlisted, 'more server')}</p>`}
  </section>`;
}

// A server's name leads to its jobs.
function Name({ origin, view }) {
  const name = address(origin.origin).host || text(origin.origin);
  return html`<a class="origin" href=${link(view, { search: name, states: [], page: 1 })} title="Show its jobs">${name}</a>`;
}

const Sick = ({ origin, view }) => html`<li class="sick">
  <${Glyph} name=${origin.shut ? 'cross' : 'warning'} />
  <div>
    <${Name} origin=${origin} view=${view} />
    <span class="bad">${origin.shut ? 'not answering' : origin.jobs === 1 ? 'its job fails' : `${count(origin.failing)} of ${some(origin.jobs, 'job')} failing`}</span>
    ${origin.shut && html`<span class="note">${some(origin.jobs, 'job')}${origin.next_try && html`, next try <${Until} at=${origin.next_try} />`}</span>`}
    ${origin.reason && html`<p class="reason">${sentence(text(origin.reason))}</p>`}
  </div>
</li>`;

const Well = ({ origin, view, sign }) => html`<li class="well">
  ${sign && html`<${Glyph} name="done" />`}
  <div><${Name} origin=${origin} view=${view} /><span class="note">${some(origin.jobs, 'job')}, in order</span></div>
</li>`;
