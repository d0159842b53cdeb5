// couchbackup, IBM's backup tool for CouchDB: what it backs up from couchrep and restores into it is all there.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { ask, at, backupTool, edit, fill, run, startCouchrep } from './support.mjs';

let couchrep;
let dir;

before(async () => {
  couchrep = await startCouchrep();
  dir = await mkdtemp(join(tmpdir(), 'couchbackup-'));
});

after(async () => {
  await couchrep?.stop();
  await rm(dir, { recursive: true });
});

test('a database is restored from its backup, equal in every revision', async () => {
  const source = at(couchrep, 'source');
  await fill(source);
  await edit(source);
  const backup = join(dir, 'backup.txt');
  await backupTool('couchbackup', couchrep.url, 'source', backup, 'w', '--log', join(dir, 'log'), '--attachments');
  await ask('PUT', `${couchrep.url}/restored`, undefined, 201);
  await backupTool('couchrestore', couchrep.url, 'restored', backup, 'r', '--attachments');
  const urls = ['source', 'restored'].map((name) => `${couchrep.url}/${name}`);
  const { code, said } = await run('verify', ...urls, '--both', '--attachments');
  assert.equal(code, 0, said);
  // Two empty databases are equal as well.
  const { doc_count: count } = await ask('GET', urls[1], undefined, 200);
  assert.ok(count > 300, `${count} documents`);
});
