// What the page shows stands in the address after `#`, so that a reload and a shared link show the same.
//
// A job that a document describes is named by the document, since its replication id changes when it is edited.
// Nothing that was typed into a form goes here, except the search.

const EMPTY = { states: [], search: '', page: 1, job: null, refused: false };

// A job's name on this page: `{database, doc_id}` or `{id}`.
export function keyOf(row) {
  return row.doc_id ? `${encodeURIComponent(row.database)}/${encodeURIComponent(row.doc_id)}` : row.id;
}

export function parseKey(key) {
  const slash = key.indexOf('/');
  if (slash < 0) return { id: key };
  try {
    return { database: decodeURIComponent(key.slice(0, slash)), doc_id: decodeURIComponent(key.slice(slash + 1)) };
  } catch {
    return { id: key };
  }
}

export function read(hash = location.hash) {
  const said = new URLSearchParams(hash.replace(/^#/, ''));
  return {
    states: (said.get('states') || '').split(',').filter(Boolean),
    search: said.get('search') || '',
    page: Math.max(1, parseInt(said.get('page'), 10) || 1),
    job: said.get('job') || null,
    refused: said.has('refused'),
  };
}

export function write(view) {
  const said = new URLSearchParams();
  if (view.states.length) said.set('states', view.states.join(','));
  if (view.search) said.set('search', view.search);
  if (view.page > 1) said.set('page', view.page);
  if (view.job) said.set('job', view.job);
  if (view.job && view.refused) said.set('refused', '');
  return `#${said}`;
}

export const link = (view, change) => write({ ...EMPTY, ...view, ...change });
