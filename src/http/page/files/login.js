// Logs in with a name and a password, as CouchDB does it: the server answers with a cookie that no script can read.
//
// A session that ends while somebody works is begun anew in a dialog over the page, so that nothing typed is lost.
// A server that answers strangers too gives them a button for the same dialog, which can be closed.

import { html, useRef, useState } from './vendor/preact-htm.js';
import { ask } from './server.js';
import { Dialog } from './dialog.js';

export function Login({ over, done, close }) {
  const fields = useRef();
  const [busy, work] = useState(false);
  const [wrong, say] = useState('');

  async function submit(event) {
    event.preventDefault();
    if (busy) return;
    const [name, password] = ['name', 'password'].map((field) => fields.current.elements[field].value);
    work(true);
    say('');
    try {
      await ask('POST', '../_session', { body: { name, password } });
      fields.current.reset();
      done();
    } catch (error) {
      say(error.status === 401 ? 'The name or the password is wrong.' : error.message);
      fields.current.elements.password.select();
    }
    work(false);
  }

  const form = html`<form class="login" ref=${fields} onSubmit=${submit} aria-label="Log in">
    <div class="body">
      ${over && !close && html`<p>The session has ended. Log in to go on where you were.</p>`}
      <label>Name <input name="name" autocomplete="username" autocapitalize="none" spellcheck=${false} required autofocus /></label>
      <label>Password <input name="password" type="password" autocomplete="current-password" required aria-describedby="login-wrong" /></label>
      <p id="login-wrong" class="wrong" role="alert">${wrong}</p>
      <button class="primary" aria-disabled=${busy}>${busy ? 'Logging in ...' : 'Log in'}</button>
    </div>
  </form>`;
  if (over) return html`<${Dialog} title="Log in" close=${close}>${form}<//>`;
  return html`<main class="door">
    <h1><img src="icon.svg" alt="" width="32" height="32" /> couchrep</h1>
    ${form}
  </main>`;
}
