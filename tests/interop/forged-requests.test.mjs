// A page of another origin, open in the browser of somebody who is logged in here, sends what browsers let any page send: forms, fetches
// without leave, pictures. None of it changes anything: couchrep by itself, without any admins, and beside a CouchDB on its own paths.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';

import { asked, beside, embedded, fresh } from './admin-uis/servers.mjs';
import { launch, skip } from './chromium.mjs';
import { startCouchrep, until } from './support.mjs';

const party = async () => ({ ...(await startCouchrep()), admin: undefined });

let browser, site;

before(async () => {
  if (skip) return;
  site = createServer((_, response) => response.setHeader('content-type', 'text/html').end('<!doctype html><title>Evil</title>'));
  site.listen(0, '127.0.0.1');
  [browser] = await Promise.all([launch(), once(site, 'listening')]);
});

after(async () => {
  await browser?.close();
  site?.close();
});

for (const [name, start] of [['by itself', embedded], ['without admins', party], ['beside a CouchDB', beside]]) {
  test(`${name}: another site's page changes nothing`, { skip, timeout: 60_000 }, async () => {
    const server = await start('.');
    const [db, other] = [fresh('mine'), fresh('other')];
    const context = await browser.newContext();
    try {
      const ask = (method, path, body) => asked(method, server.url + path, server.admin, body);
      await ask('PUT', `/${db}`);
      await ask('PUT', `/${other}`);
      const { rev } = await ask('PUT', `/${db}/doc`, {});
      const job = await running(ask, server, db, other);
      const page = await loggedIn(context, server);
      const before = await state(ask, db, job);
      const answered = [];
      const forged = (start === beside ? ownAttempts : attempts)({ db, other, job, rev });
      page.on('response', (response) => {
        if (response.request().method() === 'POST') answered.push(response.status());
      });
      // The same machine, once under the name that the cookie is for (which is the same site, on another port), once under another.
      for (const host of ['127.0.0.1', 'localhost']) {
        await page.goto(`http://${host}:${site.address().port}/`);
        await forge(page, server.url, forged);
        // In the window itself, where cookies of the answer count whatever page it comes from.
        for (const [path, body] of forged) {
          await page.goto(`http://${host}:${site.address().port}/`);
          await Promise.all([page.waitForURL(server.url + path), page.evaluate(submit, [server.url + path, body])]);
        }
      }
      assert.deepEqual(await state(ask, db, job), before);
      // Three forms and two fetches each, by each name, come for certain.
      await until('they came', () => answered.length >= 2 * 5 * forged.length);
      assert.ok(answered.every((status) => status >= 400), `they were refused: ${answered}`);
      if (server.admin) assert.equal(await who(page, server), server.admin.name, 'the session is still there');
      await ask('DELETE', `/_replicator/${db}-job?rev=${(await ask('GET', `/_replicator/${db}-job`))._rev}`);
    } finally {
      await context.close();
      for (const name of [db, other]) await asked('DELETE', `${server.url}/${name}`, server.admin);
      await server.stop();
    }
  });
}

/** A continuous replication's id. */
async function running(ask, { url, admin }, db, other) {
  const at = (name) => Object.assign(new URL(`${url}/${name}`), admin && { username: admin.name, password: admin.password }).href;
  await ask('PUT', `/_replicator/${db}-job`, { source: at(db), target: at(other), continuous: true });
  let job;
  await until('it runs', async () => {
    const { jobs } = await ask('GET', '/_scheduler/jobs');
    job = jobs.find(({ doc_id }) => doc_id === `${db}-job`);
    return job;
  });
  return job.id;
}

async function loggedIn(context, { url, admin }) {
  const page = await context.newPage();
  if (admin) {
    const answer = await context.request.post(`${url}/_session`, { form: { name: admin.name, password: admin.password } });
    assert.equal(answer.status(), 200);
  }
  return page;
}

const who = async (page, { url }) => (await (await page.context().request.get(`${url}/_session`)).json()).userCtx.name;

/** What would have changed. */
async function state(ask, db, job) {
  const { total_rows, jobs } = await ask('GET', '/_scheduler/jobs');
  const { paused } = jobs.find(({ id }) => id === job);
  const { doc_count, update_seq } = await ask('GET', `/${db}`);
  const documents = await ask('GET', '/_replicator/_all_docs');
  // CouchDB itself tells nothing of pauses.
  return { total_rows, paused: paused === true, doc_count, update_seq, documents: documents.rows.map(({ id }) => id) };
}

const ownAttempts = ({ db, other, job }) => [
  ['/_replicate', { source: db, target: other, continuous: true }],
  ['/_replicate', { replication_id: job, cancel: true }],
  [`/_scheduler/jobs/${encodeURIComponent(job)}`, { action: 'pause' }],
];

const attempts = ({ db, other, job, rev }) => [
  ...ownAttempts({ db, other, job }),
  [`/${db}`, { _id: 'forged' }],
  [`/${db}/_bulk_docs`, { docs: [{ _id: 'forged' }] }],
  ['/_replicator', { _id: `${db}-forged`, source: db, target: other }],
  [`/${db}/doc`, { _rev: rev }],
  ['/_session', { name: 'mallory', password: 'x' }],
];

/** Leads the window to the answer of a form. */
function submit([action, fields]) {
  const form = document.body.appendChild(document.createElement('form'));
  Object.assign(form, { action, method: 'POST' });
  for (const [name, value] of Object.entries(fields)) {
    Object.assign(form.appendChild(document.createElement('input')), { type: 'hidden', name, value });
  }
  form.submit();
}

/** Sends each of them in all the ways that need no leave. */
const forge = (page, url, attempts) =>
  page.evaluate(
    async ([url, attempts]) => {
      const form = (path, enctype, fields) =>
        new Promise((resolve) => {
          const frame = document.createElement('iframe');
          frame.name = `frame-${Math.random()}`;
          document.body.append(frame);
          const form = document.body.appendChild(document.createElement('form'));
          Object.assign(form, { action: url + path, method: 'POST', enctype, target: frame.name });
          for (const [name, value] of Object.entries(fields)) {
            const input = form.appendChild(document.createElement('input'));
            Object.assign(input, { type: 'hidden', name, value });
          }
          // Not the empty page that it begins with; what was answered no script may look at.
          frame.onload = () => {
            try {
              if (frame.contentWindow.location.href === 'about:blank') return;
            } catch {
              resolve();
            }
          };
          form.submit();
        });
      const send = (path, method, body) =>
        fetch(url + path, { method, mode: 'no-cors', credentials: 'include', body }).catch(() => undefined);
      const pictured = (path) =>
        new Promise((resolve) => {
          const picture = new Image();
          picture.onload = picture.onerror = () => resolve();
          picture.src = url + path;
        });
      for (const [path, body] of attempts) {
        const text = JSON.stringify(body);
        await form(path, 'text/plain', { [text.slice(0, -1) + ',"x":"']: '"}' });
        await form(path, 'application/x-www-form-urlencoded', body);
        await form(path, 'multipart/form-data', body);
        // A body of no type at all, and one of a type that needs no leave.
        await send(path, 'POST', new Blob([text]));
        await send(path, 'POST', new Blob([text], { type: 'text/plain;application/json' }));
        navigator.sendBeacon(url + path, new Blob([text]));
        // These need leave, which nobody gives.
        await fetch(url + path, { method: 'POST', credentials: 'include', headers: { 'content-type': 'application/json' }, body: text }).catch(() => undefined);
        await fetch(url + path, { method: 'DELETE', credentials: 'include' }).catch(() => undefined);
        await pictured(path);
        await pictured(`${path}?_method=DELETE`);
      }
    },
    [url, attempts],
  );
