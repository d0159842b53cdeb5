// A replication as the form holds it, and as the server takes it.
//
// Fields of a document that the form doesn't know are kept. So are an end's credentials, but only for the server that they
// were given for: whoever changes the address to another server's types them again.

const FILTERS = ['filter', 'query_params', 'doc_ids', 'selector'];

const emptyEnd = () => ({ url: '', user: '', password: '', kept: null });

export const empty = (keep) => ({
  source: emptyEnd(), target: emptyEnd(), continuous: true, create_target: false, keep, name: '',
  choice: 'all', filter: '', query_params: '', doc_ids: '', selector: '', rest: {},
});

export function split(url) {
  try {
    const parsed = new URL(url);
    if (!parsed.username && !parsed.password) return { url };
    const [user, password] = [decodeURIComponent(parsed.username), decodeURIComponent(parsed.password)];
    parsed.username = parsed.password = '';
    return { url: parsed.href, user, password };
  } catch {
    return { url };
  }
}

function readEnd(said) {
  const end = typeof said === 'string' ? { url: said } : { ...said };
  const { url, user, password } = split(String(end.url ?? ''));
  const basic = end.auth?.basic;
  return {
    url, user: user ?? basic?.username ?? '', password: '',
    // As it was, to be sent again if it isn't changed.
    kept: { said, url, user: user ?? basic?.username ?? '', password: password ?? basic?.password ?? null },
  };
}

export function read(doc) {
  const { _id, _rev, source, target, continuous, create_target, ...rest } = doc;
  for (const field of Object.keys(rest)) if (field.startsWith('_replication_')) delete rest[field];
  const json = (value) => (value === undefined ? '' : JSON.stringify(value, null, 2));
  const draft = {
    source: readEnd(source), target: readEnd(target), continuous: continuous === true, create_target: create_target === true, keep: true, name: _id, rev: _rev,
    choice: rest.selector ? 'selector' : rest.doc_ids ? 'doc_ids' : rest.filter ? 'filter' : 'all',
    filter: rest.filter ?? '', query_params: json(rest.query_params), doc_ids: json(rest.doc_ids), selector: json(rest.selector),
  };
  for (const field of FILTERS) delete rest[field];
  return { ...draft, rest };
}

const serverOf = (url) => { try { return new URL(url).origin; } catch { return 'local'; } };
export const sameServer = (end) => Boolean(end.kept) && serverOf(end.url) === serverOf(end.kept.url);

function writeEnd({ url, user, password, kept }) {
  const same = sameServer({ url, kept });
  if (same && url === kept.url && user === kept.user && !password) return kept.said;
  // Headers may hold credentials too, so they stay with their server.
  const base = same && typeof kept.said === 'object' ? { ...kept.said } : {};
  delete base.auth;
  const plain = same && typeof kept.said === 'object' && kept.said.auth;
  const secret = password || (same && user === kept.user ? kept.password : '') || '';
  const end = { ...base, url };
  if (user) end.auth = { ...(plain || {}), basic: { username: user, password: secret } };
  else if (plain && !plain.basic) end.auth = plain;
  return Object.keys(end).length > 1 ? end : url;
}

// What is wrong with the draft as it stands: `{field: words}`.
export function faults(draft) {
  const wrong = {};
  for (const side of ['source', 'target']) {
    const { url, user, password } = draft[side];
    if (!url.trim()) wrong[side] = 'Give a URL, or the name of a database of this server.';
    else if (/^[a-z][a-z0-9+.-]*:/i.test(url) && !/^https?:\/\/[^/]/i.test(url)) wrong[side] = 'A URL begins with http:// or https://.';
    else if (!/^https?:/i.test(url) && /[.:]\S*\//.test(url)) wrong[side] = 'This looks like a URL: begin it with http:// or https://.';
    else if (password && !user) wrong[side] = 'The password needs a user name.';
  }
  if (draft.keep && draft.name.startsWith('_')) wrong.name = 'A name begins with anything but an underscore.';
  try { filterOf(draft); } catch (error) { wrong.filter = error.message; }
  return wrong;
}

function parse(words, what, fits) {
  let value;
  try { value = JSON.parse(words); } catch (error) { throw new Error(`The ${what} isn't JSON: ${error.message}.`); }
  if (!fits(value)) throw new Error(`The ${what} must be ${what === 'list of ids' ? 'an array of texts, as ["a", "b"]' : 'an object, as {"type": "soup"}'}.`);
  return value;
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

function filterOf({ choice, filter, query_params, doc_ids, selector }) {
  if (choice === 'selector') return { selector: parse(selector, 'selector', isObject) };
  if (choice === 'doc_ids') return { doc_ids: parse(doc_ids, 'list of ids', (ids) => Array.isArray(ids) && ids.every((id) => typeof id === 'string')) };
  if (choice !== 'filter') return {};
  if (!filter.trim()) throw new Error('Give the filter as designdoc/filtername.');
  return { filter: filter.trim(), ...(query_params.trim() ? { query_params: parse(query_params, 'parameters', isObject) } : {}) };
}

// The body of `_replicate` and `_couchrep/check`; a document's has its `_id` besides.
export function body(draft) {
  const { rest, continuous, create_target } = draft;
  // A URL that was sent off with Enter may still have its credentials in it.
  const trimmed = (end) => writeEnd({ ...end, ...split(end.url.trim()) });
  const said = { ...rest, source: trimmed(draft.source), target: trimmed(draft.target), ...filterOf(draft) };
  if (continuous) said.continuous = true;
  if (create_target) said.create_target = true;
  return said;
}

export function documentOf(draft) {
  return { ...body(draft), ...(draft.name ? { _id: draft.name } : {}), ...(draft.rev ? { _rev: draft.rev } : {}) };
}
