// The form for a new replication, and for a document that describes one.
//
// Before anything starts both ends are checked, and what was found, or what is wrong, is said beside the field.
// It starts only if both are fine, unless its user says otherwise. Passwords live in this form only and go when it closes.

import { Component, html } from './vendor/preact-htm.js';
import { ask, documentPath } from './server.js';
import * as draft from './draft.js';
import { replicate, store } from './start.js';
import { address, sentence, text } from './words.js';
import { Dialog } from './dialog.js';
import { EndFields } from './form_end.js';
import { Options } from './form_options.js';

export class Form extends Component {
  constructor(props) {
    super(props);
    this.state = { draft: props.edit ? null : draft.empty(props.server.admin && props.server.documents === 'couchrep'), found: null, faults: {}, wrong: '', busy: '' };
  }

  async componentDidMount() {
    const { edit } = this.props;
    if (!edit) return;
    try {
      this.setState({ draft: draft.read(await ask('GET', documentPath(edit.database, edit.doc_id))) });
    } catch (error) {
      this.setState({ wrong: error.message });
    }
  }

  // What was found holds only for what was asked, so any change but of whether and where it is kept clears it.
  change = (part) => this.setState(({ draft, found, faults }) => ({
    draft: { ...draft, ...part }, wrong: '',
    found: Object.keys(part).every((field) => ['keep', 'name'].includes(field)) ? found : null,
    faults: Object.fromEntries(Object.entries(faults).filter(([field]) => field !== 'filter' && !(field in part))),
  }));

  faulty() {
    const faults = draft.faults(this.state.draft);
    this.setState({ faults, wrong: '' });
    const [first] = Object.keys(faults);
    if (first) this.focus(first);
    return Boolean(first);
  }

  focus = (field) => setTimeout(() => {
    const element = document.getElementById(`form-${field}`);
    element?.closest('details')?.setAttribute('open', '');
    element?.focus();
  });

  // Whether both ends are fine.
  async check() {
    if (this.faulty()) return false;
    const asked = this.state.draft;
    this.setState({ busy: 'check', found: null });
    try {
      const found = await ask('POST', 'check', { body: draft.body(asked), patience: 90_000 });
      // Whoever edits meanwhile has it checked again.
      if (this.state.draft !== asked) return this.setState({ busy: '' });
      this.setState({ found, busy: '' });
      const end = ['source', 'target'].find((side) => found[side] && !found[side].ok);
      if (end) this.focus(end);
      return Boolean(found.ok);
    } catch (error) {
      this.setState({ wrong: error.message, busy: '' });
      return false;
    }
  }

  submit = async (event) => {
    event.preventDefault();
    if (this.state.busy) return;
    const { found } = this.state;
    if (found?.ok || (await this.check())) this.start();
  };

  start = async () => {
    if (this.state.busy || this.faulty()) return;
    const { app, edit, close } = this.props;
    const asked = this.state.draft;
    const name = asked.keep && asked.name ? asked.name : `${address(asked.source.url).name} to ${address(asked.target.url).name}`;
    this.setState({ busy: 'start', wrong: '' });
    try {
      if (asked.keep) {
        await store(asked, edit?.database);
        app.notice(edit ? `${name} is saved.` : `${name} is started.`);
      } else {
        const later = (words, bad) => { app.notice(`${name}: ${words}.`, bad); app.refresh(); };
        const words = await replicate(asked, later);
        app.notice(`${name}: ${words ?? 'started'}.`);
      }
      close();
      app.refresh();
    } catch (error) {
      this.setState({ busy: '' });
      if (error.status === 409 && asked.keep) {
        const words = edit ? 'The document was changed meanwhile. Close this form and open it again.' : 'A document of this name is there already. Choose another name.';
        this.setState(edit ? { wrong: words } : { faults: { name: words } });
        if (!edit) this.focus('name');
      } else {
        this.setState({ wrong: error.message });
      }
    }
  };

  render({ server, edit, close }, { draft, found, faults, wrong, busy }) {
    const refused = found && !found.ok;
    return html`<${Dialog} wide title=${edit ? `Edit ${edit.doc_id}` : 'New replication'} close=${close}>
      ${!draft && html`<div class="body"><p class=${wrong ? 'wrong' : 'loading'} role="status">${wrong ? sentence(wrong) : 'Asking ...'}</p></div>`}
      ${draft && html`<form class="replication" onSubmit=${this.submit} novalidate autocomplete="off">
        <div class="body">
          ${['source', 'target'].map((side) => html`<${EndFields} key=${side} side=${side} end=${draft[side]} fault=${faults[side]}
            found=${found?.[side]} checking=${busy === 'check'} change=${(end) => this.change({ [side]: { ...draft[side], ...end } })} />`)}
          <${Options} draft=${draft} faults=${faults} server=${server} edit=${edit} change=${this.change} />
          <div role="status" class="result">
            ${found?.running && html`<p class="note">This replication runs already.</p>`}
            ${found?.ok && html`<p class="good">Both ends are fine.</p>`}
            ${refused && html`<p class="wrong">${edit ? 'Nothing has been saved' : 'Nothing has been started'}: ${found.reason ? sentence(text(found.reason)) : "one end isn't fine, see above."}</p>`}
          </div>
          <p role="alert" class="wrong">${wrong && sentence(text(wrong))}</p>
        </div>
        <footer>
          <button type="button" onClick=${close}>Cancel</button>
          <button type="button" aria-disabled=${Boolean(busy)} onClick=${() => !busy && this.check()}>${busy === 'check' ? 'Checking ...' : 'Check both ends'}</button>
          ${refused && html`<button type="button" aria-disabled=${Boolean(busy)} onClick=${this.start}>${edit ? 'Save anyway' : 'Start anyway'}</button>`}
          <button class="primary" aria-disabled=${Boolean(busy)}>${edit ? (busy === 'start' ? 'Saving ...' : 'Save') : busy === 'start' ? 'Starting ...' : 'Start'}</button>
        </footer>
      </form>`}
    <//>`;
  }
}
