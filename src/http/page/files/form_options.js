// How a replication runs, whether it is kept, and which documents it copies.

import { html } from './vendor/preact-htm.js';

export function Options({ draft, faults, server, edit, change }) {
  const tick = (field) => ({ type: 'checkbox', checked: draft[field], onChange: (event) => change({ [field]: event.target.checked }) });
  const runner = server.documents !== 'couchrep' && draft.keep && {
    couchdb: 'CouchDB itself will run it, so its job will be in Fauxton, not here.',
    'another couchrep': 'Another couchrep will run it, so its job will be on its page, not here.',
    nobody: 'Nobody runs documents at the moment: it will wait.',
  }[server.documents];
  return html`<fieldset class="options">
      <legend>How</legend>
      <label class="tick"><input ...${tick('continuous')} /> <span>Continuous <small>goes on for as long as both are there</small></span></label>
      <label class="tick"><input ...${tick('create_target')} /> <span>Create the target <small>if it isn't there</small></span></label>
      ${server.admin && !edit && html`<label class="tick"><input ...${tick('keep')} />
        <span>Keep it after a restart <small>as a document in _replicator, which can be paused and edited</small></span></label>`}
      ${draft.keep && !edit && html`<label>Name of the document <small>one is made up if this is empty</small>
        <input id="form-name" value=${draft.name} onInput=${(event) => change({ name: event.target.value.trim() })} autocapitalize="none" spellcheck=${false}
          aria-invalid=${String(Boolean(faults.name))} aria-describedby="form-name-wrong" /></label>
        <p id="form-name-wrong" class="wrong" role="status">${faults.name}</p>`}
      ${runner && html`<p class="note">${runner}</p>`}
    </fieldset>
    <details class="advanced" open=${draft.choice !== 'all'}>
      <summary>Only some documents</summary>
      <${Choice} draft=${draft} fault=${faults.filter} change=${change} />
    </details>`;
}

function Choice({ draft, fault, change }) {
  const { choice } = draft;
  const set = (field) => (event) => change({ [field]: event.target.value });
  const says = { id: 'form-filter', 'aria-invalid': String(Boolean(fault)), 'aria-describedby': 'form-filter-wrong', spellcheck: false };
  return html`
    <label>Which <select value=${choice} onChange=${set('choice')}>
      <option value="all">All documents</option>
      <option value="selector">Those that a selector fits</option>
      <option value="doc_ids">Those with these ids</option>
      <option value="filter">Those that a filter function lets through</option>
    </select></label>
    ${choice === 'selector' && html`<label for="form-filter">Selector, as JSON</label>
      <textarea ...${says} rows="5" value=${draft.selector} onInput=${set('selector')} placeholder=${'{"type": "soup"}'} />`}
    ${choice === 'doc_ids' && html`<label for="form-filter">Ids, as a JSON array</label>
      <textarea ...${says} rows="5" value=${draft.doc_ids} onInput=${set('doc_ids')} placeholder=${'["first", "second"]'} />`}
    ${choice === 'filter' && html`<label for="form-filter">Filter function of the source</label>
      <input ...${says} value=${draft.filter} onInput=${set('filter')} placeholder="designdoc/filtername" />
      <label>Its parameters, as JSON <small>if it takes any</small>
        <textarea rows="3" spellcheck=${false} value=${draft.query_params} onInput=${set('query_params')} placeholder=${'{"kind": "soup"}'} /></label>`}
    <p id="form-filter-wrong" class="wrong" role="status">${fault}</p>`;
}
