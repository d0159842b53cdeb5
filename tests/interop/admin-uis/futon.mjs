// Futon's pages, as its user clicks and types in them. 1.0.1 and 1.6 differ in little that matters here.

import assert from 'node:assert/strict';
import { basename } from 'node:path';

import { until } from '../support.mjs';
import { asked } from './servers.mjs';

const encoded = encodeURIComponent;
const WRONG = /unauthorized to access or create database .*: Name or password is incorrect/;

const withLogin = (url, { name, password }) => Object.assign(new URL(url), { username: name, password }).href;

/** Futon from a directory, on a page that nobody is logged in to. */
export class Futon {
  constructor(dir) {
    this.dir = dir;
    this.name = basename(dir);
  }

  /**
   * Its overview asks for a list that is the admins' alone before anybody logs in, and browsers ask for an icon, which is a CouchDB's.
   * CouchDB 3 has neither the settings of CouchDB 1 nor its databases' sizes.
   */
  bears = [/^401 GET \/_all_dbs$/, /^404 GET \/_config\//, /^\d+ GET \/favicon.ico/, /^401 POST \/_replicate$/, /^404 GET .*\?revs_info=true$/];
  throws = [/^You are not a server admin\.$/, ...(process.env.COUCHDB_URL ? [/reading 'toFixed'/] : []), WRONG];

  on(page, url) {
    return new FutonPages(page, url);
  }

  /** A wrong password in its form and in a document, told in words; mended, both run. */
  async replicates({ server, remote, pages, db, copy, watched }) {
    const there = (password) => withLogin(`${remote.url}/${copy}`, { ...remote.login, password });
    assert.match(await pages.replicate(db, there('wrong'), false), WRONG);
    const answered = await pages.replicate(db, there(remote.login.password), server.renewsSessions);
    const row = async () => (await pages.tasks()).filter((row) => row.includes(copy)).join();
    await until('the document is there', async () => (await remote.documents(copy)) === 1);
    if (server.renewsSessions) {
      assert.match(await row(), /Replication.*Checkpointed|replication.*1 documents written/i);
      await watched.picture('tasks');
      // Its form can't cancel.
      const { _local_id } = JSON.parse(answered);
      await asked('POST', `${server.url}/_replicate`, server.admin, { replication_id: _local_id, cancel: true });
      await until('it is cancelled', async () => (await row()) === '');
    }

    const [source, id] = [withLogin(`${server.url}/${db}`, server.admin), `${db}-out`];
    await pages.write('_replicator', { _id: id, source, target: there('wrong'), continuous: true });
    const shown = async (member) => {
      await pages.open('_replicator', id);
      return (await pages.shownDoc())[member];
    };
    await until('it fails', async () => {
      if (server.documentsSayWhy) return WRONG.test(await shown('_replication_state_reason'));
      return (await asked('GET', `${server.url}/_scheduler/docs/_replicator/${id}`, server.admin)).state === 'crashing';
    });
    await watched.picture('failing');
    // Only 1.0's page of tasks has words for how one is.
    const failing = await row();
    if (!failing.includes('Checkpointed')) assert.match(failing, WRONG);
    await pages.edit('_replicator', id, { target: there(remote.login.password) });
    await until('the document says nothing more', async () => (await shown('_replication_state_reason')) === undefined);
    await until('the page of tasks says nothing bad of it', async () => {
      const running = await row();
      return running !== '' && !WRONG.test(running);
    });
    await pages.open('_replicator', id);
    await pages.deleteShown();
    await until('it is cancelled', async () => (await row()) === '');
  }
}

class FutonPages {
  constructor(page, url) {
    Object.assign(this, { page, url, alert: () => undefined });
    page.on('dialog', (dialog) => {
      this.alert(dialog.message());
      return dialog.accept();
    });
    // What 1.0 alerts, 1.6 throws, and nobody sees it but in the browser's console.
    page.on('pageerror', (error) => this.alert(error.message));
  }

  goto = (path) => this.page.goto(`${this.url}/_utils/${path}`);
  submit = (name) => this.page.locator('#dialog button[type=submit]', { hasText: name }).click();

  async logIn({ name, password }) {
    await this.goto('index.html');
    await this.page.locator('#userCtx .login').click();
    await this.page.fill('#dialog input[name=name]', name);
    await this.page.fill('#dialog input[name=password]', password);
    await this.submit('Login');
    await this.page.locator('#userCtx .name:visible', { hasText: name }).waitFor();
  }

  async makeDatabase(name) {
    await this.goto('index.html');
    await this.page.locator('#toolbar button.add').click();
    await this.page.fill('#dialog input[name=name]', name);
    await this.submit('Create');
    await this.page.waitForURL(`**/database.html?${encoded(name)}`);
  }

  async deleteDatabase(name) {
    await this.goto(`database.html?${encoded(name)}`);
    await this.page.locator('#toolbar button.delete:enabled').click();
    await this.submit('Delete');
    await this.page.waitForURL('**/index.html');
  }

  /** The databases that the overview shows. */
  async databases() {
    await this.goto('index.html');
    await this.page.locator('#databases tbody.footer span', { hasText: 'Showing' }).waitFor({ timeout: 3000 }).catch(() => {});
    const names = await this.page.locator('#databases tbody.content th a').allInnerTexts();
    return names.map((name) => name.trim());
  }

  /** Types a document's JSON into the page's source, and saves it. */
  async write(db, doc) {
    await this.goto(`document.html?${encoded(db)}`);
    // Its page of a new document begins with the id, and a text to change.
    const id = this.page.locator('#fields tbody.content td input').first();
    await id.fill(doc._id);
    await id.press('Enter');
    await this.page.locator('#fields tbody.content td code', { hasText: doc._id }).waitFor();
    await this.typeSource(doc);
    await this.open(db, doc._id);
  }

  /** Changes fields of a document that is there. */
  async edit(db, id, fields) {
    await this.open(db, id);
    const doc = await this.shownDoc();
    await this.typeSource({ ...doc, ...fields });
    await this.page.locator('#fields tbody.footer span', { hasText: 'Showing' }).waitFor();
  }

  async open(db, id) {
    await this.goto(`document.html?${encoded(db)}/${encoded(id)}`);
    await this.page.locator('#fields th', { hasText: '_rev' }).waitFor({ state: 'attached' });
  }

  async typeSource(doc) {
    const cell = this.page.locator('#fields tbody.source td');
    await this.page.locator('#fields th', { hasText: '_id' }).waitFor({ state: 'attached' });
    await this.page.locator('#tabs .source a').click();
    await cell.dblclick();
    await cell.locator('textarea').fill(JSON.stringify(doc));
    await cell.locator('button.apply').click();
    await cell.locator('pre').waitFor();
    const loaded = this.page.waitForEvent('load');
    await this.page.locator('#toolbar button.save').click();
    await loaded;
  }

  async deleteShown() {
    await this.page.locator('#toolbar button.delete').click();
    await this.submit('Delete');
    await this.page.waitForURL('**/database.html?**');
  }

  async shownDoc() {
    await this.page.locator('#tabs .source a').click();
    return JSON.parse(await this.page.locator('#fields tbody.source pre').innerText());
  }

  async attach(db, id, file) {
    await this.open(db, id);
    await this.page.locator('#toolbar button.load').click();
    await this.page.setInputFiles('#dialog input[type=file]', file);
    const loaded = this.page.waitForEvent('load');
    await this.submit('Upload');
    await loaded;
    await this.page.locator('#tabs .tabular a').click();
    await this.page.locator('#fields .attachments a', { hasText: file.name }).waitFor();
  }

  /** Fills in the replicator's form; what Futon alerts, or the answer that it shows. */
  async replicate(source, target, continuous) {
    await this.goto('replicator.html');
    await this.page.locator('#from_name option', { hasText: source }).waitFor({ state: 'attached' });
    await this.page.selectOption('#from_name', source);
    await this.page.check('#to_remote');
    await this.page.fill('#to_url', target);
    await this.page.setChecked('#continuous', continuous);
    const alerted = new Promise((resolve) => (this.alert = resolve));
    await this.page.click('#replicate');
    const shown = this.page.locator('#records tbody.content th').first();
    return Promise.race([alerted, shown.innerText()]);
  }

  /** The pages of jobs, for somebody to whom they may say anything. */
  lookAtTasks = () => this.lookAt('status.html');
  lookAtReplications = () => this.lookAt('replicator.html');

  async lookAt(path) {
    await this.goto(path);
    await this.page.waitForLoadState('networkidle');
  }

  /** The rows of the page of active tasks. */
  async tasks() {
    await this.goto('status.html');
    await this.page.locator('#status tbody.content tr').first().waitFor();
    return this.page.locator('#status tbody.content tr').allInnerTexts();
  }
}
