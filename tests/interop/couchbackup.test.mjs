// couchbackup, IBM's backup tool for CouchDB: what it backs up from couchrep and restores into it is all there.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { ask, at, edit, fill, run, startCouchrep } from './support.mjs';

const tools = new URL('node_modules/@cloudant/couchbackup/bin/', import.meta.url).pathname;

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

/** Runs one of its tools with a file as its standard input or output, and asserts that it succeeded. */
async function tool(name, db, file, flags, ...options) {
  const handle = await open(file, flags);
  const stdio = flags === 'w' ? ['ignore', handle.fd, 'pipe'] : [handle.fd, 'ignore', 'pipe'];
  const args = [join(tools, `${name}.bin.js`), '--url', couchrep.url, '--db', db, ...options];
  const child = spawn(process.execPath, args, { stdio });
  let said = '';
  child.stderr.on('data', (data) => (said += data));
  const [code] = await once(child, 'exit');
  await handle.close();
  assert.equal(code, 0, `${name}: ${said}`);
}

test('a database is restored from its backup, equal in every revision', async () => {
  const source = at(couchrep, 'source');
  await fill(source);
  await edit(source);
  const backup = join(dir, 'backup.txt');
  await tool('couchbackup', 'source', backup, 'w', '--log', join(dir, 'log'), '--attachments');
  await ask('PUT', `${couchrep.url}/restored`, undefined, 201);
  await tool('couchrestore', 'restored', backup, 'r', '--attachments');
  const urls = ['source', 'restored'].map((name) => `${couchrep.url}/${name}`);
  const { code, said } = await run('verify', ...urls, '--both', '--attachments');
  assert.equal(code, 0, said);
  // Two empty databases are equal as well.
  const { doc_count: count } = await ask('GET', urls[1], undefined, 200);
  assert.ok(count > 300, `${count} documents`);
});
