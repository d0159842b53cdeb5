// couchrep and pouchdb-server 4, each replicating from and to the other.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { ask, assertReplicas, at, edit, fill, replicate, startCouchrep, startPouchdbServer, until } from './support.mjs';

let couchrep;
let pouch;

before(async () => {
  [couchrep, pouch] = await Promise.all([startCouchrep(), startPouchdbServer()]);
});

after(() => Promise.all([couchrep?.stop(), pouch?.stop()]));

async function filled(server, name) {
  const db = at(server, name);
  await fill(db);
  return db;
}

test('couchrep pulls from pouchdb-server, and again only what is new', async () => {
  const source = await filled(pouch, 'pulled');
  const url = `${pouch.url}/pulled`;
  const first = await replicate(couchrep, url, 'pulled', { create_target: true });
  assert.equal(first.ok, true);
  assert.equal(first.history[0].doc_write_failures, 0);
  const target = at(couchrep, 'pulled');
  await assertReplicas(source, target);

  assert.equal((await replicate(couchrep, url, 'pulled')).no_changes, true);
  await edit(source);
  const second = await replicate(couchrep, url, 'pulled');
  assert.ok(second.history[0].docs_written < 10, JSON.stringify(second.history[0]));
  await assertReplicas(source, target);
});

test('couchrep pushes to pouchdb-server, and again only what is new', async () => {
  const source = await filled(couchrep, 'pushed');
  const url = `${pouch.url}/pushed`;
  const first = await replicate(couchrep, 'pushed', url, { create_target: true });
  assert.equal(first.history[0].doc_write_failures, 0);
  const target = at(pouch, 'pushed');
  await assertReplicas(source, target);

  assert.equal((await replicate(couchrep, 'pushed', url)).no_changes, true);
  await edit(source);
  const second = await replicate(couchrep, 'pushed', url);
  assert.ok(second.history[0].docs_written < 10, JSON.stringify(second.history[0]));
  await assertReplicas(source, target);
});

test('couchrep copies between two databases of pouchdb-server', async () => {
  const source = await filled(pouch, 'one');
  await replicate(couchrep, `${pouch.url}/one`, `${pouch.url}/other`, { create_target: true });
  await assertReplicas(source, at(pouch, 'other'));
});

test('pouchdb-server pulls from couchrep', async () => {
  const source = await filled(couchrep, 'theirs');
  assert.equal((await replicate(pouch, `${couchrep.url}/theirs`, 'theirs', { create_target: true })).ok, true);
  await assertReplicas(source, at(pouch, 'theirs'));
});

test('pouchdb-server pushes to couchrep', async () => {
  const source = await filled(pouch, 'ours');
  await ask('PUT', `${couchrep.url}/ours`, undefined, 201);
  assert.equal((await replicate(pouch, 'ours', `${couchrep.url}/ours`)).ok, true);
  await assertReplicas(source, at(couchrep, 'ours'));
});

test('a continuous replication carries on until it is cancelled', async () => {
  const source = await filled(pouch, 'live');
  const job = [`${pouch.url}/live`, 'live'];
  const started = await replicate(couchrep, ...job, { create_target: true, continuous: true });
  const target = at(couchrep, 'live');
  const arrives = (id) => until(`${id} arrives`, () => target.get(id).then(() => true, () => false));
  await arrives('doc299');
  await source.put({ _id: 'late' });
  await arrives('late');
  await edit(source);
  await arrives('new one');

  const cancelled = await replicate(couchrep, ...job, { create_target: true, continuous: true, cancel: true });
  assert.equal(cancelled._local_id, started._local_id);
  await replicate(couchrep, ...job);
  await assertReplicas(source, target);
});
