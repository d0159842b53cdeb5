// The page as a whole: what it knows, and who may change that.
//
// State lives here and goes down as properties. It changes in three ways: the poll hears something new, the address
// after `#` changes (place.js), or somebody acts. The parts draw what they are given.

import { Component, html, render } from './vendor/preact-htm.js';
import { ask } from './server.js';
import { poll } from './poll.js';
import * as place from './place.js';
import { isFailing } from './words.js';
import { Header, Banners } from './header.js';
import { Login } from './login.js';
import { Overview } from './overview.js';
import { Jobs, PAGE } from './jobs.js';
import { Details } from './details.js';
import { Form } from './form.js';
import { Notices } from './notices.js';
import { Ended } from './ended.js';

const NARROW = matchMedia('(max-width: 62rem)');

class Page extends Component {
  state = { view: place.read(), data: null, down: null, login: null, dataOf: null, ended: {}, form: null, notices: [], beat: 0, acts: 0, narrow: NARROW.matches };

  componentDidMount() {
    this.poll = poll({
      path: () => this.path(),
      heard: (data, dataOf) => this.setState(({ beat, login }) => ({ data, dataOf, down: null, login: login === 'wished' ? login : null, beat: beat + 1 })),
      quiet: () => { this.wantEnded(); if (this.state.down) this.setState({ down: null }); },
      trouble: (error, nextTry) => this.trouble(error, nextTry),
    });
    this.ended = new Ended((ended) => this.setState({ ended }));
    addEventListener('hashchange', this.moved);
    addEventListener('popstate', this.moved);
    addEventListener('keydown', this.escape);
    NARROW.addEventListener('change', () => this.setState({ narrow: NARROW.matches }));
  }

  componentDidUpdate(_, before) {
    const { data, ended } = this.state;
    if (data !== before.data || ended !== before.ended) document.title = data ? title(data, ended) : 'couchrep';
    // Somebody else has logged in.
    if (before.data && data?.server.name !== before.data.server.name) this.ended.forget();
    this.wantEnded();
  }

  // Only a server's admin may list documents that are at their end.
  wantEnded() {
    const { data, view } = this.state;
    if (data?.server.admin) this.ended.want(this.endedState(), view.page, all(data.states));
  }

  path() {
    const { view } = this.state;
    const ended = this.endedState();
    const query = new URLSearchParams({ limit: ended ? 1 : PAGE, skip: ended ? 0 : (view.page - 1) * PAGE });
    if (view.states.length && !ended) query.set('states', view.states.join(','));
    if (view.search && !ended) query.set('search', view.search);
    return `jobs?${query}`;
  }

  // The state of ended documents that is shown instead of jobs, if one is.
  endedState() {
    const { view, data } = this.state;
    const [only, ...others] = view.states;
    return data?.server.admin && !others.length && ['failed', 'completed'].includes(only) ? only : null;
  }

  trouble(error, nextTry) {
    if (error.status === 401) return this.setState({ login: 'needed', down: null });
    this.setState(({ down }) => ({ down: { since: down?.since ?? new Date().toISOString(), nextTry, error } }));
  }

  moved = () => {
    const before = this.state.view;
    const view = place.read();
    if (place.write(view) === place.write(before)) return;
    const listed = place.write({ ...view, job: null }) !== place.write({ ...before, job: null });
    const row = linkOf(view.job ?? before.job);
    const top = row?.getBoundingClientRect().top;
    // Whoever opens a job is led to it; a reload leaves the focus alone.
    this.setState({ view, led: view.job && view.job !== before.job }, () => {
      // The list gets narrower or wider; the job stays where it was on the screen.
      if (row?.isConnected && Boolean(view.job) !== Boolean(before.job)) scrollBy(0, row.getBoundingClientRect().top - top);
      if (listed) this.poll.now();
    });
    if (!view.job && before.job) this.back(before.job);
  };

  // Goes to another view. `replace` leaves no step in the browser's history.
  go = (change, replace) => {
    const hash = place.link(this.state.view, change);
    history[replace ? 'replaceState' : 'pushState'](null, '', hash);
    this.moved();
  };

  // The focus goes back to the job in the list whose details were closed.
  back(job) {
    requestAnimationFrame(() => {
      (linkOf(job) ?? document.getElementById('jobs-title'))?.focus({ preventScroll: true });
    });
  }

  escape = (event) => {
    if (event.key !== 'Escape' || event.defaultPrevented || document.querySelector('dialog[open]') || !this.state.view.job) return;
    if (event.target.matches?.('input, textarea, select')) return;
    this.go({ job: null, refused: false });
  };

  // After an act: what has changed is asked for at once.
  refresh = () => {
    this.ended.stale();
    this.setState(({ acts }) => ({ acts: acts + 1 }));
    this.poll.now();
  };

  notice = (words, bad = false) => {
    const id = Symbol();
    this.setState(({ notices }) => ({ notices: [...notices.slice(-3), { id, words, bad }] }));
    if (!bad) setTimeout(() => this.dismiss(id), 10_000);
  };
  dismiss = (id) => this.setState(({ notices }) => ({ notices: notices.filter((notice) => notice.id !== id) }));

  loggedIn = () => {
    this.setState({ login: null });
    this.poll.now();
  };

  logout = async () => {
    try { await ask('DELETE', '../_session'); } catch (error) { return this.notice(`Logging out failed: ${error.message}`, true); }
    this.setState({ data: null, ended: {}, notices: [], form: null, login: 'needed' });
    this.go({ job: null }, true);
    this.poll.now();
  };

  render(_, { view, data, dataOf, down, login, ended, form, notices, beat, acts, narrow, led }) {
    const app = this;
    if (login && !data) return html`<${Login} done=${this.loggedIn} />`;
    const open = view.job && data;
    const covered = Boolean(open && narrow);
    return html`
      <div class=${open ? 'page with-details' : 'page'}>
        <div class="under" inert=${covered}>
          <${Header} app=${app} server=${data?.server} />
          <main>
            <${Banners} app=${app} data=${data} down=${down} />
            ${data && html`
              <${Overview} app=${app} data=${data} view=${view} ended=${ended} endedState=${this.endedState()} />
              <${Jobs} app=${app} data=${data} dataOf=${dataOf} late=${dataOf !== this.path()} view=${view} ended=${ended} endedState=${this.endedState()} />`}
            ${!data && !down && html`<p class="loading" role="status">Asking couchrep ...</p>`}
          </main>
        </div>
        ${open && html`<${Details} key=${view.job} app=${app} data=${data} view=${view} beat=${beat} acts=${acts} led=${led} />`}
      </div>
      <${Notices} notices=${notices} dismiss=${this.dismiss} />
      ${form && html`<${Form} app=${app} server=${data.server} edit=${form.edit} close=${() => this.setState({ form: null })} />`}
      ${login && html`<${Login} over done=${this.loggedIn} close=${login === 'wished' && (() => this.setState({ login: null }))} />`}`;
  }
}

const linkOf = (job) => [...document.querySelectorAll('[data-job]')].find((link) => link.dataset.job === job);

// What fails shows in the browser's tab too.
const all = (states) => Object.values(states).reduce((sum, n) => sum + n, 0);

function title({ states }, { failed = 0 }) {
  const failing = Object.entries(states).reduce((sum, [state, n]) => sum + (isFailing(state) ? n : 0), failed ?? 0);
  return failing ? `(${failing} failing) couchrep` : 'couchrep';
}

render(html`<${Page} />`, document.getElementById('page'));
