// A modal <dialog>: the browser keeps the focus in it, and Escape closes it. When it is gone the focus is back where it was.

import { html, useLayoutEffect, useMemo, useRef } from './vendor/preact-htm.js';

let opened = 0;

export function Dialog({ title, close, wide, children }) {
  const dialog = useRef();
  // One may lie over another.
  const id = useMemo(() => `dialog-${++opened}`, []);
  useLayoutEffect(() => {
    const element = dialog.current;
    const before = document.activeElement;
    element.showModal();
    return () => {
      element.close();
      if (before?.isConnected) before.focus({ preventScroll: true });
    };
  }, []);
  const cancel = (event) => { event.preventDefault(); close?.(); };
  return html`<dialog ref=${dialog} class=${wide ? 'wide' : ''} aria-labelledby=${id} onCancel=${cancel}>
    <header>
      <h2 id=${id}>${title}</h2>
      ${close && html`<button type="button" class="quiet icon" aria-label="Close" onClick=${close}>${'×'}</button>`}
    </header>
    ${children}
  </dialog>`;
}

// A question before something that can't be undone.
export function Confirm({ title, children, act, close, yes }) {
  return html`<${Dialog} title=${title} close=${close}>
    <div class="body">${children}</div>
    <footer>
      <button type="button" onClick=${close} autofocus>Keep it</button>
      <button type="button" class="danger" onClick=${() => { close(); act(); }}>${yes}</button>
    </footer>
  <//>`;
}
