// Clients of CouchDB through a couchrep that stands beside one: nano, PouchDB and couchbackup find there what they find directly.
//
// The CouchDB is the one that COUCHDB_URL names (http://admin:password@host:port), else a couchrep with an embedded store.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import Nano from 'nano';

import { assertReplicas, at, backupTool, edit, fill, inMemory, run, startCouchrep, until } from './support.mjs';

const admin = { name: 'admin', password: 'pass' };
const prefix = `couchrep-test-${randomUUID()}`;

let played;
let couchdb;
let through;
let beside;

before(async () => {
  played = process.env.COUCHDB_URL ? undefined : await startCouchrep({ admin });
  const named = new URL(process.env.COUCHDB_URL || played.url);
  if (played) Object.assign(named, { username: admin.name, password: admin.password });
  const withCredentials = (origin) => `http://${named.username}:${named.password}@${new URL(origin).host}`;
  beside = await startCouchrep({ args: ['--couchdb', `http://${named.host}`] });
  couchdb = { url: withCredentials(named.href) };
  through = { url: withCredentials(beside.url) };
});

after(async () => {
  const { db } = Nano(couchdb.url);
  const made = (await db.list()).filter((name) => name.startsWith(prefix));
  for (const name of made) await db.destroy(name);
  await beside?.stop();
  await played?.stop();
});

/** What somebody gets who does with nano what its users do. */
async function asWithNano({ url }, name) {
  const server = Nano(url);
  const refused = (error) => ({ status: error.statusCode, error: error.error, reason: error.reason });
  const answers = [await server.db.create(name), await server.db.create(name).catch(refused)];
  const db = server.use(name);
  const first = await db.insert({ text: 'ü€😀', n: 1 }, 'a/b c+d"<>');
  answers.push(first, await db.insert({ n: 2 }, 'a/b c+d"<>').catch(refused));
  answers.push(await db.get('a/b c+d"<>', { revs_info: true }), await db.get('none').catch(refused));
  answers.push(await db.bulk({ docs: [{ _id: 'one' }, { _id: 'two' }, { _id: 'a/b c+d"<>' }] }));
  answers.push(await db.list({ include_docs: true, start_key: 'o' }), await db.fetch({ keys: ['two', 'none'] }));
  answers.push((await db.changes({ include_docs: true })).results.map(({ id, changes }) => ({ id, changes })).sort((a, b) => (a.id < b.id ? -1 : 1)));
  const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, n) => (n * n) % 251));
  answers.push((await db.attachment.insert('with', 'a b.bin', bytes, 'application/octet-stream')).ok);
  answers.push((await db.attachment.get('with', 'a b.bin')).equals(bytes));
  answers.push((await db.head('one')).etag, (await db.destroy('one', (await db.get('one'))._rev)).ok);
  answers.push((await db.info()).doc_count);
  const anonymous = Nano({ url: new URL(url).origin, jar: true });
  const { username, password } = new URL(url);
  answers.push(await anonymous.auth(username, password), (await anonymous.session()).userCtx);
  const reader = db.changesReader.get({ since: 'now', batchSize: 1, wait: true, timeout: 10_000 });
  const batch = new Promise((resolve, reject) => reader.on('batch', resolve).on('error', reject));
  // The reader begins after the database's last change at the moment when it is answered.
  const writing = setInterval(() => db.insert({}), 200);
  answers.push((await batch).length > 0);
  clearInterval(writing);
  db.changesReader.stop();
  return answers;
}

test('nano gets through couchrep what it gets directly', async () => {
  const [direct, passed] = [await asWithNano(couchdb, `${prefix}-nano-a`), await asWithNano(through, `${prefix}-nano-b`)];
  assert.deepEqual(passed, direct);
});

test('PouchDB replicates and syncs live through couchrep, both ways', async () => {
  const [here, there] = [inMemory(), at(through, `${prefix}-live`)];
  await fill(here);
  const sync = here.sync(there, { live: true });
  const arrives = (db, id) => until(`${id} arrives`, () => db.get(id).then(() => true, () => false));
  try {
    await arrives(there, 'doc299');
    await there.put({ _id: 'from there' });
    await here.put({ _id: 'from here' });
    await Promise.all([arrives(here, 'from there'), arrives(there, 'from here')]);
    await edit(there);
    await arrives(here, 'new one');
  } finally {
    sync.cancel();
    await sync.catch(() => undefined);
  }
  await here.sync(there);
  await assertReplicas(here, there);
  await assertReplicas(here, at(couchdb, `${prefix}-live`));
  const pulled = inMemory();
  await pulled.replicate.from(there);
  await assertReplicas(pulled, here);
});

test('what couchbackup backs up and restores through couchrep is all there', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'couchbackup-'));
  try {
    const names = ['backed-up', 'restored'].map((name) => `${prefix}-${name}`);
    const source = at(couchdb, names[0]);
    await fill(source);
    await edit(source);
    const backup = join(dir, 'backup.txt');
    await backupTool('couchbackup', through.url, names[0], backup, 'w', '--log', join(dir, 'log'), '--attachments');
    await Nano(couchdb.url).db.create(names[1]);
    await backupTool('couchrestore', through.url, names[1], backup, 'r', '--attachments');
    const { code, said } = await run('verify', ...names.map((name) => `${couchdb.url}/${name}`), '--both', '--attachments');
    assert.equal(code, 0, said);
    assert.ok((await Nano(couchdb.url).use(names[1]).info()).doc_count > 300);
  } finally {
    await rm(dir, { recursive: true });
  }
});
