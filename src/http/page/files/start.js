// Starts a replication, or changes the document of one.

import { ask, documentPath } from './server.js';
import { body, documentOf } from './draft.js';
import { some } from './words.js';

const AT_ONCE_MS = 1500;

export async function store(draft, database = '_replicator') {
  const doc = documentOf(draft);
  const put = () => (doc._id ? ask('PUT', documentPath(database, doc._id), { body: doc }) : ask('POST', `../${encodeURIComponent(database)}`, { body: doc }));
  try {
    return await put();
  } catch (error) {
    if (error.status !== 404 || draft.rev) throw error;
    // The database of such documents isn't there before the first one.
    await ask('PUT', `../${encodeURIComponent(database)}`);
    return put();
  }
}

// A one-shot answers when it is done, maybe after hours. What goes wrong at once is thrown; what comes later is told to `later`.
export async function replicate(draft, later) {
  const answer = ask('POST', '../_replicate', { body: body(draft), patience: 0 });
  const first = await Promise.race([answer, new Promise((go) => setTimeout(() => go(null), AT_ONCE_MS))]);
  if (!first) answer.then((done) => later(words(done)), (error) => later(error.message, true));
  return first && words(first);
}

function words(done) {
  if (!Array.isArray(done.history)) return done.no_changes ? 'nothing was left to copy' : 'started';
  const { docs_written = 0, doc_write_failures = 0 } = done.history[0] ?? {};
  return `done, ${some(docs_written, 'document')} written${doc_write_failures ? `, ${doc_write_failures} refused` : ''}`;
}
