// PouchDB 9 in this process, replicating both ways with couchrep's store.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { assertReplicas, at, edit, fill, inMemory, oddIds, startCouchrep, until } from './support.mjs';

let couchrep;

before(async () => {
  couchrep = await startCouchrep();
});

after(() => couchrep?.stop());

test('PouchDB pushes to couchrep, and again only what is new', async () => {
  const [source, target] = [inMemory(), at(couchrep, 'pushed')];
  await fill(source);
  const first = await source.replicate.to(target);
  assert.equal(first.doc_write_failures, 0);
  await assertReplicas(source, target);

  assert.equal((await source.replicate.to(target)).docs_read, 0);
  await edit(source);
  const second = await source.replicate.to(target);
  assert.ok(second.docs_written < 10, JSON.stringify(second));
  await assertReplicas(source, target);
});

test('PouchDB pulls from couchrep, and again only what is new', async () => {
  const [source, target] = [at(couchrep, 'pulled'), inMemory()];
  await fill(source);
  const first = await target.replicate.from(source);
  assert.equal(first.doc_write_failures, 0);
  await assertReplicas(source, target);

  assert.equal((await target.replicate.from(source)).docs_read, 0);
  await edit(source);
  const second = await target.replicate.from(source);
  assert.ok(second.docs_written < 10, JSON.stringify(second));
  await assertReplicas(source, target);
});

test('edits on both sides meet as conflicts, equally on both', async () => {
  const [here, there] = [inMemory(), at(couchrep, 'both')];
  await fill(here);
  await here.sync(there);
  for (const id of oddIds.filter((id) => id !== 'with/slash')) {
    await here.put({ ...(await here.get(id)), by: 'here' });
    await there.put({ ...(await there.get(id)), by: 'there' });
  }
  await here.sync(there);
  const conflicted = await there.get('plain', { conflicts: true });
  assert.equal(conflicted._conflicts.length, 1);
  await assertReplicas(here, there);
});

test('a live sync carries changes both ways', async () => {
  const [here, there] = [inMemory(), at(couchrep, 'live')];
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
});

test('a filtered replication takes the documents that it names', async () => {
  const [source, target] = [at(couchrep, 'chosen'), inMemory()];
  await fill(source);
  await target.replicate.from(source, { doc_ids: ['doc7', 'Zürich–東京–🦊', '_design/recipes'] });
  const { rows } = await target.allDocs();
  assert.deepEqual(rows.map(({ id }) => id).sort(), ['Zürich–東京–🦊', '_design/recipes', 'doc7'].sort());
});
