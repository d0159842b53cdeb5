// A couchrep with an admin UI, by itself or beside a CouchDB, and another server, with a password, to replicate to.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

import { startCouchrep } from '../support.mjs';

const played = { name: 'root', password: 'hunter2' };
const far = { name: 'there', password: 'far' };

/** JSON's answer to whoever `login` is; asserts that it succeeds. */
export async function asked(method, url, login, body) {
  const headers = { accept: 'application/json', 'content-type': 'application/json' };
  if (login) headers.authorization = `Basic ${btoa(`${login.name}:${login.password}`)}`;
  const answer = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${url}: ${answer.status} ${await answer.clone().text()}`);
  return answer.json();
}

/** Deletes what a test that failed has left. */
async function clear(url, admin) {
  const ask = (method, path) => asked(method, url + path, admin);
  for (const { id, value } of (await ask('GET', '/_replicator/_all_docs')).rows) {
    if (id.startsWith('ui-')) await ask('DELETE', `/_replicator/${id}?rev=${value.rev}`);
  }
  for (const name of await ask('GET', '/_all_dbs')) if (name.startsWith('ui-')) await ask('DELETE', `/${name}`);
}

/** Starts couchrep with a UI's directory and an admin: `{ url, admin, renewsSessions, documentsSayWhy, clear, stop }`. */
export async function embedded(dir) {
  const couchrep = await startCouchrep({ admin: played, args: ['--utils-dir', dir] });
  const { url, stop } = couchrep;
  return { url, admin: played, renewsSessions: true, documentsSayWhy: true, clear: () => clear(url, played), stop };
}

/** The same beside the CouchDB that COUCHDB_URL names (http://admin:password@host:port), else beside a couchrep with an embedded store. */
export async function beside(dir) {
  const couchdb = process.env.COUCHDB_URL ? undefined : await startCouchrep({ admin: played });
  const { host, username, password } = new URL(process.env.COUCHDB_URL ?? couchdb.url);
  const admin = couchdb ? played : { name: decodeURIComponent(username), password: decodeURIComponent(password) };
  const args = ['--utils-dir', dir, '--couchdb', `http://${host}`];
  args.push('--couchdb-admin', `${admin.name}:${admin.password}`, '--take-over');
  const sidecar = await startCouchrep({ args });
  return {
    url: sidecar.url,
    admin,
    // A couchrep's cookies aren't made as a CouchDB's are, so the one beside it can't renew them.
    renewsSessions: couchdb === undefined,
    // A CouchDB's own replicator couldn't read a document that says why it crashes; lists of jobs say it.
    documentsSayWhy: couchdb !== undefined,
    clear: () => clear(sidecar.url, admin),
    stop: async () => {
      await sidecar.stop();
      await couchdb?.stop();
    },
  };
}

/**
 * Starts the other server. UIs take what is on their own host for local, so it has another name than they have.
 */
export async function startRemote() {
  const couchrep = await startCouchrep({ admin: far });
  return {
    url: couchrep.url.replace('127.0.0.1', 'localhost'),
    login: far,
    makeDatabase: (name) => asked('PUT', `${couchrep.url}/${name}`, far),
    documents: async (name) => (await asked('GET', `${couchrep.url}/${name}`, far)).doc_count,
    stop: couchrep.stop,
  };
}

/** A name that nobody has. */
export const fresh = (name) => `ui-${name}-${randomUUID().slice(0, 8)}`;
