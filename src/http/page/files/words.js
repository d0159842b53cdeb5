// States, numbers, durations and addresses in words.

// The states of CouchDB's scheduler in the order of the page, and what is wrong with those that fail.
export const STATES = [
  { state: 'crashing', word: 'Crashing', failing: true, means: 'The last try failed; it is tried again.' },
  { state: 'error', word: 'Error', failing: true, means: 'The document says something that can not be carried out yet.' },
  { state: 'failed', word: 'Failed', failing: true, means: 'Given up; it is not tried again.' },
  { state: 'running', word: 'Running', means: 'Copies, or waits for changes.' },
  { state: 'pending', word: 'Pending', means: 'Waits for its turn, or is paused.' },
  { state: 'initializing', word: 'Initializing', means: 'About to become a job.' },
  { state: 'completed', word: 'Completed', means: 'Has copied everything and ended.' },
];

export const isFailing = (state) => STATES.some((known) => known.state === state && known.failing);

// The word for one job: more exact than its state. `glyph` names its sign, `tone` its colour.
export function stateOf(row) {
  if (row.paused) return { word: 'Paused', glyph: 'paused', tone: 'calm' };
  if (row.state === 'running' && row.caught_up) return { word: 'Up to date', glyph: 'done', tone: 'good' };
  const known = {
    crashing: { word: 'Crashing', glyph: 'warning', tone: 'bad' },
    error: { word: 'Error', glyph: 'warning', tone: 'bad' },
    failed: { word: 'Failed', glyph: 'cross', tone: 'bad' },
    running: { word: 'Copying', glyph: 'running', tone: 'busy' },
    pending: { word: 'Pending', glyph: 'waiting', tone: 'calm' },
    initializing: { word: 'Initializing', glyph: 'waiting', tone: 'calm' },
    completed: { word: 'Completed', glyph: 'done', tone: 'good' },
  };
  return known[row.state] || { word: String(row.state ?? 'Unknown'), glyph: 'waiting', tone: 'calm' };
}

const whole = new Intl.NumberFormat('en');
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

export const NOTHING = '–';
export const isNumber = (n) => typeof n === 'number' && Number.isFinite(n);
export const count = (n) => (isNumber(n) ? whole.format(n) : NOTHING);
export const shortCount = (n) => (!isNumber(n) ? NOTHING : n < 100_000 ? whole.format(Math.round(n)) : short.format(n));
export const rate = (n) => (!isNumber(n) ? NOTHING : `${n > 0 && n < 10 ? Math.max(0.1, Math.round(n * 10) / 10) : shortCount(n)}/s`);
export const some = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

const UNITS = [[86_400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];

// "3 s", "5 min", "2 h 10 min", "4 d 3 h".
export function duration(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  const at = UNITS.findIndex(([size]) => seconds >= size);
  if (at < 0) return '0 s';
  const [size, unit] = UNITS[at];
  const first = Math.floor(seconds / size);
  const [smaller, smallerUnit] = UNITS[at + 1] ?? [];
  const second = at < 2 && first < 10 ? Math.floor((seconds - first * size) / smaller) : 0;
  return second ? `${first} ${unit} ${second} ${smallerUnit}` : `${first} ${unit}`;
}

// A database's address in parts, without credentials: `{full, host, name, web}`. `web` only if it is http(s): nothing else may become a link.
export function address(said) {
  const text = String(said ?? '');
  let url;
  try { url = new URL(text); } catch { return { full: text, host: '', name: text || NOTHING, web: false }; }
  url.username = url.password = '';
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return { full: text, host: '', name: text, web: false };
  let name = url.pathname.replace(/^\/|\/$/g, '');
  try { name = decodeURIComponent(name); } catch { /* It is shown as it is. */ }
  return { full: url.href, host: url.host, name: name || '/', web: true };
}

// A reason as a sentence of its own.
export function sentence(text) {
  // CouchDB's word for the error says nothing that the reason doesn't.
  const said = String(text ?? '').trim().replace(/^[a-z]+(_[a-z]+)+: (?=.)/, '');
  return said && said[0].toUpperCase() + said.slice(1) + (/[.!?/)]$/.test(said) ? '' : '.');
}

export const text = (value) => (value == null ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value));
