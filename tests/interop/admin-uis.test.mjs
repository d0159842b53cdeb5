// Fauxton and Futon, unmodified, served by couchrep: their users log in, make databases, edit, attach, replicate, see what fails
// and why, mend and cancel it. By itself, and beside a CouchDB: the one that COUCHDB_URL names (http://admin:password@host:port), else
// a couchrep with an embedded store.
//
// Fauxton comes from npm. Futon's directories are named by FUTON_DIRS (dir:dir); without it the tests of Futon say that they were skipped.
// SCREENSHOTS names a directory for pictures of the pages.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Fauxton } from './admin-uis/fauxton.mjs';
import { Futon } from './admin-uis/futon.mjs';
import { LISTS, member } from './admin-uis/member.mjs';
import { asked, beside, embedded, fresh, startRemote } from './admin-uis/servers.mjs';
import { beyond, openPage } from './admin-uis/watched-page.mjs';
import { launch, skip } from './chromium.mjs';

const futons = (process.env.FUTON_DIRS ?? '').split(':').filter(Boolean).map((dir) => new Futon(dir));
const uis = [new Fauxton(), ...futons];
const places = [['by itself', embedded], ['beside a CouchDB', beside]];
const note = { name: 'note.txt', mimeType: 'text/plain', buffer: Buffer.from('salt') };

let browser, remote;

before(async () => {
  if (skip) return;
  [browser, remote] = await Promise.all([launch(), startRemote()]);
});

after(async () => {
  await browser?.close();
  await remote?.stop();
});

if (futons.length === 0) test('Futon', { skip: 'Futon isn\'t here: FUTON_DIRS names the directories of its files' }, () => {});

for (const ui of uis) {
  for (const [place, start] of places) {
    test(`${ui.name}, ${place}: who may read one database sees nothing of others`, { skip, timeout: 60_000 }, (t) =>
      inUi(t, ui, start, `${ui.name}-${start.name}-member`, async (server, watched, pages) => {
        const known = await member(server, remote);
        try {
          await pages.logIn(known.login);
          await pages.edit(known.own, 'soup', { serves: 5 });
          await watched.picture('document');
          for (const look of [() => pages.databases(), () => pages.lookAtTasks(), () => pages.lookAtReplications()]) {
            await look();
            await watched.picture('list');
          }
          for (const list of LISTS) {
            const told = await watched.context.request.get(server.url + list, { timeout: 5000 });
            watched.told.push(`${list}: ${await told.text()}`);
          }
          const leaks = watched.told.filter((told) => told.includes(known.hidden) || told.includes(known.copy));
          assert.deepEqual(leaks, []);
          assert.ok(watched.told.length > LISTS.length + 5);
          assert.equal((await asked('GET', `${server.url}/${known.own}/soup`, server.admin)).serves, 5);
        } finally {
          await known.end();
        }
        // That he may not have these lists is for him to see, and Fauxton takes any answer for a list; nothing else may fail.
        watched.refused = beyond(watched.refused, [/^40[13] GET \/(_all_dbs|_active_tasks|_scheduler\/|_replicator\/|_node\/|_users\/)/]);
        watched.broken = beyond(watched.broken, [/^You are not/, /^e\.map is not a function$/]);
      }));
    test(`${ui.name}, ${place}: an admin keeps databases and replications`, { skip, timeout: 120_000 }, (t) =>
      inUi(t, ui, start, `${ui.name}-${start.name}`, async (server, watched, pages) => {
        const [db, copy] = [fresh('recipes'), fresh('copy')];
        await remote.makeDatabase(copy);
        await pages.logIn(server.admin);
        await keepsDocuments(server, pages, db, watched);
        await ui.replicates({ server, remote, pages, db, copy, watched });
        await pages.deleteDatabase(db);
        assert.ok(!(await pages.databases()).includes(db));
        await watched.picture('databases');
      }));
  }
}

/** Gives `live` a server and a page, and then asserts that nothing failed but what the UI bears. */
async function inUi(t, ui, start, name, live) {
  const server = await start(ui.dir);
  const watched = await openPage(browser, name);
  try {
    await live(server, watched, ui.on(watched.page, server.url));
    assert.deepEqual(beyond(watched.refused, ui.bears), [], 'refused requests');
    assert.deepEqual(beyond(watched.broken, ui.throws), [], 'errors of scripts');
  } catch (error) {
    await watched.picture('failed');
    t.diagnostic(`${watched.page.url()} ${JSON.stringify([watched.refused, watched.broken])}`);
    throw error;
  } finally {
    await watched.close();
    await server.clear();
    await server.stop();
  }
}

async function keepsDocuments({ url, admin }, pages, db, watched) {
  await pages.makeDatabase(db);
  await pages.write(db, { _id: 'soup', serves: 1 });
  await pages.edit(db, 'soup', { serves: 4 });
  await pages.attach(db, 'soup', note);
  await watched.picture('document');
  const doc = await asked('GET', `${url}/${db}/soup?attachments=true`, admin);
  assert.equal(doc.serves, 4);
  assert.equal(Buffer.from(doc._attachments['note.txt'].data, 'base64').toString(), 'salt');
}
