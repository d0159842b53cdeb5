// couchrep's own page in headless Chromium, embedded and beside another server: somebody logs in, starts a replication with a wrong
// password, sees why it fails, mends it, sees it run, has refused documents tried again, pauses, verifies and cancels; whoever isn't an
// admin sees his own jobs alone; and axe finds no serious fault in what is shown, in light and dark, on a desk and on a phone.
//
// The other server is the CouchDB that COUCHDB_URL names (http://admin:password@host:port), whose replications are taken over meanwhile,
// else a couchrep with an embedded store. SCREENSHOTS names a directory for pictures.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';

import { launch, skip } from './chromium.mjs';
import { startCouchrep } from './support.mjs';

const ROOT = { name: 'root', password: 'hunter2' };
const DESK = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740 };
const PATIENCE = 20_000; // ms, beside a busy machine

let browser, remote, axe;

before(async () => {
  if (skip) return;
  remote = await startCouchrep({ admin: ROOT });
  browser = await launch();
  axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
});

after(async () => {
  await browser?.close();
  await remote?.stop();
});

for (const way of ['embedded', 'beside another server']) {
  test(`the page, ${way}`, { skip, timeout: 180_000 }, async (t) => {
    // Beside a CouchDB whose own scheduler stands still, couchrep runs its documents.
    const embedded = way === 'embedded';
    const couchdb = !embedded && process.env.COUCHDB_URL ? new URL(process.env.COUCHDB_URL) : undefined;
    const admin = couchdb ? { name: couchdb.username, password: couchdb.password } : ROOT;
    const databases = couchdb
      ? { url: couchdb.origin, admin }
      : await startCouchrep({ admin, args: embedded ? [] : ['--run-documents', 'false'] });
    const proof = join(await mkdtemp(join(tmpdir(), 'couchrep-')), 'admin');
    await writeFile(proof, `${admin.name}:${admin.password}`, { mode: 0o600 });
    const beside = ['--couchdb', databases.url, '--couchdb-admin-file', proof, ...(couchdb ? ['--take-over'] : [])];
    const server = embedded ? databases : await startCouchrep({ args: beside });
    const ask = (method, path, body, as = admin) => asked(databases, method, path, body, as);
    const context = await browser.newContext({ viewport: DESK, reducedMotion: 'reduce' });
    const page = await context.newPage();
    const wrong = [];
    page.on('pageerror', (error) => wrong.push(String(error)));
    page.on('console', (message) => message.type() === 'error' && !/status of 40[149]/.test(message.text()) && wrong.push(message.text()));
    page.on('request', (request) => assert.ok(request.url().startsWith(server.url), `it asks ${request.url()}`));
    page.setDefaultTimeout(PATIENCE);
    const picture = (name) => process.env.SCREENSHOTS && page.screenshot({ path: join(process.env.SCREENSHOTS, `${way.split(' ')[0]}-${name}.png`) });
    const copy = `copy-${embedded ? 'of-embedded' : 'of-beside'}`;
    await asked(remote, 'PUT', `/${copy}`);
    for (const old of couchdb ? ['recipes', 'sealed'] : []) await ask('DELETE', `/${old}`).catch(() => {});
    await ask('PUT', '/recipes');
    await ask('PUT', '/recipes/soup', { salt: 1 });
    await ask('PUT', '/recipes/tea', {});

    await t.test('it wants a login, and says when the password is wrong', async () => {
      await page.goto(`${server.url}/_couchrep/`);
      await page.getByLabel('Name').fill(admin.name);
      await page.getByLabel('Password').fill('wrong');
      await page.getByRole('button', { name: 'Log in' }).click();
      await page.getByText('The name or the password is wrong.').waitFor();
      await clean(page);
      await picture('login');
      await page.getByLabel('Password').fill(admin.password);
      await page.getByRole('button', { name: 'Log in' }).click();
      await page.getByText('Nothing replicates yet').waitFor();
      await picture('empty');
    });

    await t.test('the form says which end is wrong before anything starts', async () => {
      await page.getByRole('button', { name: 'New replication' }).first().click();
      const form = page.getByRole('dialog');
      await end(form, 'Source').url.fill('nosuch');
      await fill(end(form, 'Target'), `${remote.url}/${copy}`, 'root', 'wrong');
      await form.getByRole('button', { name: 'Start', exact: true }).click();
      await form.getByText('There is no such database.').waitFor();
      await form.getByText('The user name or the password is missing or wrong.').waitFor();
      await clean(page);
      await picture('form');
      assert.deepEqual((await asked(server, 'GET', '/_couchrep/jobs', undefined, admin)).jobs, []);
      // CouchDB's documents name no database without a URL.
      await fill(end(form, 'Source'), `${databases.url}/recipes`, admin.name, admin.password);
      await form.getByRole('button', { name: 'Check both ends' }).click();
      await form.getByText('Found, with').waitFor();
      await form.getByLabel('Keep it after a restart').check();
      await form.getByLabel('Name of the document').fill('backup');
      await form.getByRole('button', { name: 'Start anyway' }).click();
      await form.waitFor({ state: 'detached' });
    });

    await t.test('it fails, and the reason is there in words', async () => {
      await row(page, 'backup').getByText('Crashing').waitFor();
      await row(page, 'backup').getByText(/unauthorized/i).first().waitFor();
      await row(page, 'backup').getByText(/next try/).waitFor();
      await clean(page);
      await picture('failing');
    });

    await t.test('mended, it runs', async () => {
      await row(page, 'backup').getByRole('link').first().click();
      const details = page.getByRole('complementary');
      await details.getByText('History').waitFor();
      await clean(page);
      await details.getByRole('button', { name: 'Edit' }).click();
      const form = page.getByRole('dialog');
      await end(form, 'Target').password.fill(ROOT.password);
      await form.getByRole('button', { name: 'Save', exact: true }).click();
      await form.waitFor({ state: 'detached' });
      await row(page, 'backup').getByText('Up to date').waitFor();
      assert.equal((await asked(remote, 'GET', `/${copy}/soup`)).salt, 1);
      await picture('running');
    });

    await t.test('refused documents are listed and tried again', async () => {
      const refuses = { validate_doc_update: "function (doc) { if (!doc.salt && !doc._deleted) throw({ forbidden: 'needs salt' }); }" };
      const { rev } = await asked(remote, 'PUT', `/${copy}/_design/salt`, refuses);
      await ask('PUT', '/recipes/water', {});
      await row(page, 'backup').getByRole('button', { name: '1 refused document' }).click();
      const details = page.getByRole('complementary');
      await details.getByText('needs salt').waitFor();
      await picture('refused');
      await details.getByRole('button', { name: 'Try them again' }).click();
      await details.getByText('1 refused again').waitFor();
      await asked(remote, 'DELETE', `/${copy}/_design/salt?rev=${rev}`);
      await details.getByRole('button', { name: 'Try them again' }).click();
      await details.getByText('1 document written; none was refused.').waitFor();
      await asked(remote, 'GET', `/${copy}/water`);
    });

    await t.test('paused, resumed, verified, deleted', async () => {
      const details = page.getByRole('complementary');
      await details.getByRole('button', { name: 'Pause' }).click();
      await row(page, 'backup').getByText('Paused').waitFor();
      assert.equal((await ask('GET', '/_replicator/backup')).paused, true);
      await details.getByRole('button', { name: 'Resume' }).click();
      await row(page, 'backup').getByText('Up to date').waitFor();
      await details.getByRole('button', { name: 'Compare both ends' }).click();
      await details.getByText('Nothing is missing: 3 documents compared.').waitFor();
      await details.getByRole('button', { name: 'Delete document' }).click();
      await page.getByRole('dialog').getByRole('button', { name: 'Delete document' }).click();
      await page.getByText('Nothing replicates yet').waitFor();
    });

    await t.test('one without a document is started and cancelled', async () => {
      await page.getByRole('button', { name: 'New replication' }).first().click();
      const form = page.getByRole('dialog');
      await fill(end(form, 'Source'), `${databases.url}/recipes`, admin.name, admin.password);
      await fill(end(form, 'Target'), `${remote.url}/${copy}`, 'root', ROOT.password);
      await form.getByLabel('Keep it after a restart').uncheck();
      await form.getByRole('button', { name: 'Start', exact: true }).click();
      await form.waitFor({ state: 'detached' });
      const job = row(page, 'no document');
      await job.getByText('Up to date').waitFor();
      await job.getByRole('link').first().click();
      await page.getByRole('complementary').getByRole('button', { name: 'Cancel' }).click();
      await page.getByRole('dialog').getByRole('button', { name: 'Cancel replication' }).click();
      await page.getByText('Nothing replicates yet').waitFor();
    });

    await t.test('whoever is no admin sees his own jobs alone', async () => {
      for (const name of ['ann', 'bob']) {
        const user = `/_users/org.couchdb.user:${name}`;
        const old = await ask('GET', user).catch(() => ({}));
        await ask('PUT', user, { ...(old._rev && { _rev: old._rev }), name, password: name, type: 'user', roles: [] });
      }
      await ask('PUT', '/sealed');
      await ask('PUT', '/sealed/_security', { admins: {}, members: { names: ['bob'] } });
      await ask('PUT', '/recipes/_security', { admins: {}, members: { names: ['ann'] } });
      const replicate = (source, as) => asked(server, 'POST', '/_replicate', { source, target: there(copy), continuous: true }, as);
      await replicate('sealed', { name: 'bob', password: 'bob' });
      await replicate('recipes', { name: 'ann', password: 'ann' });
      await row(page, 'sealed').waitFor();
      await page.getByRole('button', { name: 'Log out' }).click();
      await page.getByLabel('Name').fill('ann');
      await page.getByLabel('Password').fill('ann');
      await page.getByRole('button', { name: 'Log in' }).click();
      await row(page, 'recipes').waitFor();
      assert.ok(!(await page.content()).includes('sealed'), 'a name of another');
      await clean(page);
      await picture('not-admin');
    });

    await t.test('on a phone and in the dark', async () => {
      await page.setViewportSize(PHONE);
      await page.emulateMedia({ colorScheme: 'dark' });
      await clean(page);
      await picture('phone-dark');
      const { scrollWidth, clientWidth } = await page.evaluate(() => document.documentElement);
      assert.ok(!(scrollWidth > clientWidth), `${scrollWidth} > ${clientWidth}`);
      await row(page, 'recipes').getByRole('link').first().press('Enter');
      await page.getByRole('complementary').getByText('Facts').waitFor();
      await clean(page);
      await picture('phone-dark-details');
      await page.keyboard.press('Escape');
      await page.getByRole('complementary').waitFor({ state: 'detached' });
    });

    assert.deepEqual(wrong, []);
    await context.close();
    if (!embedded) await server.stop();
    await databases.stop?.();
    await rm(dirname(proof), { recursive: true });
  });
}

/** The fields of one end in the form. */
function end(form, name) {
  const fields = form.getByRole('group', { name });
  return { url: fields.getByLabel('URL or name of a database'), user: fields.getByLabel('User name'), password: fields.getByLabel('Password') };
}

/** A job in the list that has this in its text. */
const row = (page, text) => page.getByRole('list').getByRole('listitem').filter({ has: page.getByRole('heading', { level: 3 }), hasText: text });

/** A database of the other server, with its password. */
const there = (name) => ({ url: `${remote.url}/${name}`, auth: { basic: { username: ROOT.name, password: ROOT.password } } });

async function fill(end, url, user, password) {
  await end.url.fill(url);
  await end.user.fill(user);
  await end.password.fill(password);
}

/** Nothing that axe calls serious or critical. */
async function clean(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const serious = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), []);
}

async function asked(server, method, path, body, as = ROOT) {
  const headers = { authorization: `Basic ${btoa(`${as.name}:${as.password}`)}` };
  if (body) headers['content-type'] = 'application/json';
  const answer = await fetch(server.url + path, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.json();
}
