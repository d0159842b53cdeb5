// Two people, each with PouchDB 9 in a browser of their own and a third in Node, who live through one couchrep: users, rights,
// a validation that refuses half of what they push, attachments, conflicts, and a restart of the server in the middle.
//
// Where there is no Chromium (chromium.mjs) the test says that it was skipped.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';

import { launch, skip } from './chromium.mjs';
import { asUser, inMemory, startCouchrep, until } from './support.mjs';

const ROOT = { name: 'root', password: 'hunter2' };
const EACH = 40; // documents of each person, half of which are refused

let couchrep, site, browser;

before(async () => {
  if (skip) return;
  site = await startSite();
  couchrep = await startCouchrep({ admin: ROOT, args: ['--cors-origins', site.url, '--cors-credentials', 'true'] });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await couchrep?.stop();
  site?.close();
});

test('two browsers and a Node live through one couchrep', { skip, timeout: 300_000 }, async (t) => {
  await prepare();
  const [ann, bob] = [await openPage('ann'), await openPage('bob')];
  const cyd = { name: 'cyd', db: inMemory(), denied: 0 };

  await t.test('a stranger and a wrong password are sent away', async () => {
    for (const auth of [undefined, { username: 'ann', password: 'wrong' }]) {
      const status = await ann.page.evaluate(
        (args) => globalThis.remote(args).allDocs().then(() => 200, (error) => error.status),
        { url: `${couchrep.url}/app`, auth },
      );
      assert.equal(status, 401);
    }
  });

  await t.test('a session of one\'s own is begun across origins, and is one\'s own', async () => {
    const who = await ann.page.evaluate(async (url) => {
      const ask = (options) => fetch(`${url}/_session`, { credentials: 'include', ...options }).then((a) => a.json());
      const headers = { 'content-type': 'application/json' };
      await ask({ method: 'POST', headers, body: JSON.stringify({ name: 'ann', password: 'pw-ann' }) });
      return ask({});
    }, couchrep.url);
    assert.equal(who.userCtx.name, 'ann');
  });

  const live = [ann, bob].map((person) => sync(person));
  const cydsSync = cyd.db.sync(asUser(couchrep, 'app', cyd.name), { live: true, retry: true });
  cydsSync.on('denied', () => (cyd.denied += 1));
  await Promise.all(live);

  await t.test('half of what is pushed is refused, the other half is everybody\'s', async () => {
    await Promise.all([write(ann), write(bob), writeHere(cyd)]);
    const good = (EACH / 2) * 3;
    await until('everybody has the good ones of all', async () => (await goodOnes(ann, bob, cyd)).every((n) => n === good));
    const denied = async () => [await deniedOf(ann), await deniedOf(bob), cyd.denied];
    await until('everybody was told what was refused', async () => (await denied()).every((n) => n === EACH / 2));
  });

  await t.test('what is written while the server is away gets there afterwards, conflicts and attachments too', async () => {
    await couchrep.kill();
    for (const person of [ann, bob]) {
      await person.page.evaluate(async (name) => {
        const doc = await globalThis.local.get('ann-00');
        await globalThis.local.put({ ...doc, by: name });
        const data = btoa(`from ${name} `.repeat(5000));
        const _attachments = { 'note.txt': { content_type: 'text/plain', data } };
        await globalThis.local.put({ _id: `${name}-attached`, owner: name, _attachments });
      }, person.name);
    }
    await couchrep.restart();
    const revs = (doc) => [doc._rev, ...(doc._conflicts ?? [])].sort().join();
    const conflicted = async (person) => revs(await read(person, 'ann-00', { conflicts: true }));
    await until('all see the same conflict', async () => {
      const seen = [await conflicted(ann), await conflicted(bob), revs(await cyd.db.get('ann-00', { conflicts: true }))];
      return seen.every((one) => one === seen[0] && one.includes(','));
    });
    for (const name of ['ann', 'bob']) {
      const attachment = () => cyd.db.getAttachment(`${name}-attached`, 'note.txt').catch(() => undefined);
      await until(`${name}'s attachment is there`, async () => (await attachment()) !== undefined);
      assert.equal(String(await attachment()), `from ${name} `.repeat(5000));
    }
  });

  await t.test('whoever is no member any more is told so', async () => {
    await admin('PUT', '/app/_security', { members: { names: ['ann', 'cyd'] }, admins: { names: [] } });
    const url = `${couchrep.url}/app`;
    const asked = (person) =>
      person.page.evaluate(
        (args) => globalThis.remote(args).get('ann-00').then(() => 200, (error) => error.status),
        { url, auth: { username: person.name, password: `pw-${person.name}` } },
      );
    assert.deepEqual([await asked(ann), await asked(bob)], [200, 403]);
  });

  cydsSync.cancel();
});

/** Users, a database of theirs, and a validation: a document keeps its owner, a member, and an odd `n` is refused. */
async function prepare() {
  for (const name of ['ann', 'bob', 'cyd']) {
    await admin('PUT', `/_users/org.couchdb.user:${name}`, { name, password: `pw-${name}`, roles: [], type: 'user' });
  }
  await admin('PUT', '/app');
  await admin('PUT', '/app/_security', { members: { names: ['ann', 'bob', 'cyd'] }, admins: { names: [] } });
  const validation = (newDoc, oldDoc, userCtx) => {
    if (newDoc.n % 2 === 1) throw { forbidden: 'n must be even' };
    if (oldDoc && oldDoc.owner !== newDoc.owner) throw { forbidden: 'a document keeps its owner' };
    if (!userCtx.name) throw { unauthorized: 'log in' };
  };
  await admin('PUT', '/app/_design/rules', { validate_doc_update: validation.toString() });
}

async function admin(method, path, body) {
  const authorization = `Basic ${btoa(`${ROOT.name}:${ROOT.password}`)}`;
  const headers = { authorization, 'content-type': 'application/json' };
  const answer = await fetch(couchrep.url + path, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`);
  return answer.json();
}

/** A page of the site in a browser that shares nothing with others. */
async function openPage(name) {
  const page = await (await browser.newContext()).newPage();
  page.on('pageerror', (error) => console.error(`${name}'s page:`, error));
  await page.goto(site.url);
  await page.evaluate(() => {
    globalThis.local = new PouchDB('app');
    globalThis.remote = ({ url, auth }) => new PouchDB(url, { auth, skip_setup: true });
    globalThis.denied = 0;
  });
  return { name, page };
}

const sync = ({ name, page }) =>
  page.evaluate(
    (args) => {
      const live = globalThis.local.sync(globalThis.remote(args), { live: true, retry: true, back_off_function: () => 500 });
      live.on('denied', () => (globalThis.denied += 1));
    },
    { url: `${couchrep.url}/app`, auth: { username: name, password: `pw-${name}` } },
  );

const docsOf = (name) =>
  Array.from({ length: EACH }, (_, n) => ({ _id: `${name}-${String(n).padStart(2, '0')}`, owner: name, n }));

const write = ({ name, page }) => page.evaluate((docs) => globalThis.local.bulkDocs(docs).then(() => null), docsOf(name));
const writeHere = ({ name, db }) => db.bulkDocs(docsOf(name));
const deniedOf = ({ page }) => page.evaluate(() => globalThis.denied);
const read = ({ page }, id, options) => page.evaluate(([id, options]) => globalThis.local.get(id, options), [id, options]);

/** How many documents with an even `n` each of them has. */
async function goodOnes(...people) {
  const all = people.map(({ page, db }) => {
    const read = (db) => db.allDocs({ include_docs: true }).then(({ rows }) => rows.map(({ doc }) => doc.n));
    return db ? read(db) : page.evaluate(() => globalThis.local.allDocs({ include_docs: true }).then(({ rows }) => rows.map(({ doc }) => doc.n)));
  });
  return (await Promise.all(all)).map((ns) => ns.filter((n) => n % 2 === 0).length);
}

/** The page's own site: another origin than couchrep's. */
async function startSite() {
  const pouchdb = await readFile(createRequire(import.meta.url).resolve('pouchdb/dist/pouchdb.min.js'));
  const server = createServer((request, response) => {
    const isScript = request.url === '/pouchdb.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(isScript ? pouchdb : '<!doctype html><title>App</title><script src="/pouchdb.js"></script>');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}
