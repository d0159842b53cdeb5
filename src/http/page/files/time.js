// Times that stay true while nothing else changes: "5 min ago", "in 12 s".
//
// One clock for the whole page ticks every two seconds while somebody looks. A text that reads the same is not drawn anew.

import { html, useEffect, useRef, useState } from './vendor/preact-htm.js';
import { duration, NOTHING } from './words.js';
import { now } from './server.js';

const TICK_MS = 2000;
const listeners = new Set();

setInterval(() => { if (!document.hidden) for (const tick of listeners) tick(); }, TICK_MS);
document.addEventListener('visibilitychange', () => { if (!document.hidden) for (const tick of listeners) tick(); });

export function useClock(say) {
  const latest = useRef(say);
  latest.current = say;
  const [, said] = useState(say());
  useEffect(() => {
    const tick = () => said(latest.current());
    listeners.add(tick);
    return () => listeners.delete(tick);
  }, []);
  return say();
}

const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

function Time({ at, say, none = NOTHING }) {
  const when = Date.parse(at);
  const words = useClock(() => (Number.isNaN(when) ? none : say((when - now()) / 1000)));
  if (Number.isNaN(when)) return html`<span>${none}</span>`;
  return html`<time datetime=${new Date(when).toISOString()} title=${absolute.format(when)}>${words}</time>`;
}

const past = (seconds) => Math.max(0, -seconds);

export const Ago = ({ at, none }) =>
  html`<${Time} at=${at} none=${none} say=${(s) => (past(s) < 5 ? 'just now' : `${duration(past(s))} ago`)} />`;
export const When = ({ at }) => html`<span>${Number.isNaN(Date.parse(at)) ? '' : absolute.format(Date.parse(at))}</span>`;
export const Since = ({ at, none }) => html`<${Time} at=${at} none=${none} say=${(s) => duration(past(s))} />`;
export const Until = ({ at, none }) => html`<${Time} at=${at} none=${none} say=${(s) => (s < 1 ? 'now' : `in ${duration(s)}`)} />`;
