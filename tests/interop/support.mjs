// Starts the peers as children, fills a database with everything that replication must carry, and reads its leaves.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import PouchDB from 'pouchdb-core';
import httpAdapter from 'pouchdb-adapter-http';
import memoryAdapter from 'pouchdb-adapter-memory';
import replication from 'pouchdb-replication';

PouchDB.plugin(httpAdapter).plugin(memoryAdapter).plugin(replication);

const here = fileURLToPath(new URL('.', import.meta.url));
const binary = process.env.COUCHREP_BIN ?? join(here, '../../target/debug/couchrep');

/** A PouchDB in this process's memory. */
export const inMemory = () => new PouchDB(`memory-${randomUUID()}`, { adapter: 'memory' });

/** PouchDB's face of a database on a server; the database is made where absent. */
export const at = (server, name) => new PouchDB(`${server.url}/${name}`);

/** The same, as one of the server's users, whose password is `pw-` and his name; it must be there. */
export const asUser = (server, name, user) =>
  new PouchDB(`${server.url}/${name}`, { auth: { username: user, password: `pw-${user}` }, skip_setup: true });

/**
 * Starts couchrep on a free port: `{ url, stop, kill, restart }`. After `kill` (it gets no time for anything), `restart`
 * starts it again on the same port, with the same data.
 */
export async function startCouchrep({ admin, args = [] } = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'couchrep-'));
  const env = { ...process.env, COUCHREP_LOG: 'warn' };
  if (admin) env.COUCHREP_ADMIN = `${admin.name}:${admin.password}`;
  let child;
  const start = async (listen) => {
    child = spawn(binary, ['serve', '--listen', listen, '--data-dir', dir, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env,
    });
    const [line] = await once(createInterface(child.stdout), 'line');
    return /listens on (http:[^,]+),/.exec(line)[1];
  };
  const url = await start('127.0.0.1:0');
  const kill = async () => {
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  return { url, stop: () => end(child, dir), kill, restart: () => start(new URL(url).host) };
}

/** Runs couchrep as a command to its end: its exit code, and what it said. */
export async function run(...args) {
  const child = spawn(binary, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, COUCHREP_LOG: 'warn' } });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (said += data));
  const [code] = await once(child, 'close');
  return { code, said };
}

/** Runs one of couchbackup's tools with a file as its standard input or output, and asserts that it succeeded. */
export async function backupTool(name, url, db, file, flags, ...options) {
  const handle = await open(file, flags);
  const stdio = flags === 'w' ? ['ignore', handle.fd, 'pipe'] : [handle.fd, 'ignore', 'pipe'];
  const args = [join(here, 'node_modules/@cloudant/couchbackup/bin', `${name}.bin.js`), '--url', url, '--db', db, ...options];
  const child = spawn(process.execPath, args, { stdio });
  let said = '';
  child.stderr.on('data', (data) => (said += data));
  const [code] = await once(child, 'exit');
  await handle.close();
  assert.equal(code, 0, `${name}: ${said}`);
}

/** Starts pouchdb-server on a free port, in memory: `{ url, stop }`. */
export async function startPouchdbServer() {
  const dir = await mkdtemp(join(tmpdir(), 'pouchdb-server-'));
  const port = await freePort();
  const main = join(here, 'node_modules/pouchdb-server/bin/pouchdb-server');
  const child = spawn(process.execPath, [main, '--in-memory', '--no-stdout-logs', '--port', port], {
    cwd: dir,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const url = `http://127.0.0.1:${port}`;
  await until('pouchdb-server answers', () => fetch(url).then((answer) => answer.ok, () => false));
  return { url, stop: () => end(child, dir) };
}

async function end(child, dir) {
  if (child.exitCode === null && child.signalCode === null) {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }
  await rm(dir, { recursive: true });
}

async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  return port;
}

/** Asks again until it holds: peers that tell nothing can only be asked. */
export async function until(what, holds, limitMs = 20_000) {
  for (const start = Date.now(); !(await holds()); await sleep(50)) {
    assert.ok(Date.now() - start < limitMs, `${what}: not within ${limitMs} ms`);
  }
}

/** Sends JSON and asserts the status. */
export async function ask(method, url, body, status) {
  const answer = await fetch(url, {
    method,
    headers: { 'Content-Type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  assert.equal(answer.status, status, `${method} ${url}: ${text}`);
  return JSON.parse(text);
}

/** One-shot `_replicate` on a server. */
export const replicate = (server, source, target, more = {}) =>
  ask('POST', `${server.url}/_replicate`, { source, target, ...more }, more.continuous && !more.cancel ? 202 : 200);

export const oddIds = [
  'plain',
  'with/slash',
  'with space',
  'plus+plus',
  'per%cent',
  'per%2Fcent',
  'question?mark#hash&and=is',
  'quote"s\'and\\backslash',
  'Zürich–東京–🦊',
  'colon:semi;comma,dot.',
  '-dash',
  '~tilde',
];

/** Fills a database with documents, conflicts, deletions, attachments and design documents, under all kinds of ids. */
export async function fill(db) {
  const text = (data, type = 'text/plain') => ({ content_type: type, data: Buffer.from(data).toString('base64') });
  const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, i) => (i * i) % 251));
  await db.bulkDocs([
    ...Array.from({ length: 300 }, (_, n) => ({ _id: `doc${n}`, n, nested: { list: [n, null, true, 'ü'] } })),
    ...oddIds.map((_id) => ({ _id, name: _id })),
    { _id: '_design/recipes', views: { all: { map: 'function (doc) { emit(doc._id); }' } }, language: 'javascript' },
    {
      _id: '_design/with attachment',
      _attachments: { 'style.css': text('body { color: red }', 'text/css') },
    },
    {
      _id: 'attached/several',
      _attachments: {
        'note.txt': text('salt\n'.repeat(3000)),
        'picture.bin': { content_type: 'application/octet-stream', data: bytes.toString('base64') },
        'empty.txt': text(''),
        'Menü für 東京.txt': text('unicode name'),
        'dir/with space+plus%.json': text('{"a":1}', 'application/json'),
      },
    },
  ]);
  for (const id of ['doc1', 'doc2', 'with/slash']) {
    await db.remove(await db.get(id));
  }
  for (const id of ['doc3', 'attached/several']) {
    await db.put({ ...(await db.get(id)), edited: true });
  }
  // A tree with three live leaves, one of the losers with an attachment, and one deleted.
  const path = (start, ...ids) => ({ _rev: `${start}-${ids[0]}`, _revisions: { start, ids } });
  const [a, b, c, d, e, f, last] = [...'abcdef9'].map((digit) => digit.repeat(32));
  await db.bulkDocs(
    [
      { _id: 'conflicted', winner: true, ...path(3, d, b, a) },
      { _id: 'conflicted', winner: false, _attachments: { 'loser.txt': text('still here') }, ...path(2, c, a) },
      { _id: 'conflicted', _deleted: true, why: 'merged', ...path(3, e, f, a) },
      { _id: 'conflicted', also: 'alive', ...path(2, last, a) },
    ],
    { new_edits: false },
  );
}

/** Every leaf with its ancestors, body and attachments' bytes, sorted: replicas have equal ones. */
export async function leaves(db) {
  const { results } = await db.changes({ style: 'all_docs' });
  const wanted = results.flatMap(({ id, changes }) => changes.map(({ rev }) => ({ id, rev })));
  const found = [];
  for (const { id, rev } of wanted) {
    const doc = await db.get(id, { rev, revs: true, attachments: true, binary: true });
    const body = Object.entries(doc).filter(([name]) => !name.startsWith('_')).sort();
    const attachments = Object.entries(doc._attachments ?? {}).map(([name, attachment]) => [
      name,
      attachment.content_type,
      attachment.data.length,
      createHash('sha256').update(attachment.data).digest('hex'),
    ]);
    const path = doc._revisions.ids;
    found.push({ id, rev, deleted: doc._deleted === true, path, body, attachments: attachments.sort() });
  }
  return found.sort((one, other) => (one.id + one.rev < other.id + other.rev ? -1 : 1));
}

/** Asserts that two databases are replicas of each other, and have something in them. */
export async function assertReplicas(one, other) {
  const [left, right] = [await leaves(one), await leaves(other)];
  assert.ok(left.length > 300, `only ${left.length} leaves`);
  assert.ok(left.some((leaf) => leaf.deleted) && left.some((leaf) => leaf.attachments.length > 3));
  // Only what differs: hundreds of equal leaves in a message help nobody.
  const without = (leaves, others) => {
    const known = new Set(others.map((leaf) => JSON.stringify(leaf)));
    return leaves.filter((leaf) => !known.has(JSON.stringify(leaf)));
  };
  assert.deepEqual(without(right, left), without(left, right));
}

/** Edits, resolves, deletes and adds after a first replication. */
export async function edit(db) {
  await db.remove(await db.get('plain'));
  await db.put({ ...(await db.get('doc5')), edited: 'again' });
  await db.put({ _id: 'new one' });
  const several = await db.get('attached/several');
  delete several._attachments['empty.txt'];
  several._attachments['added.txt'] = { content_type: 'text/plain', data: Buffer.from('added').toString('base64') };
  await db.put(several);
  const { _conflicts } = await db.get('conflicted', { conflicts: true });
  await db.remove('conflicted', _conflicts[0]);
}
