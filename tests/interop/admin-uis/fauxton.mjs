// Fauxton's pages, as its user clicks and types in them. Its files are npm's: the package's release is built, so its own dependencies
// aren't installed (package-lock.json names none of them).

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { until } from '../support.mjs';

const encoded = encodeURIComponent;

export class Fauxton {
  name = 'fauxton-1.2.6';
  dir = join(dirname(createRequire(import.meta.url).resolve('fauxton/package.json')), 'dist/release');

  /** Before it writes a replication's document it looks whether there is one. */
  bears = [/^404 GET \/_replicator\/[^_]/];
  throws = [];

  /** Its pages for somebody who isn't logged in. */
  on(page, url) {
    return new FauxtonPages(page, url);
  }

  /** A continuous replication with a wrong password, from its form to its end. */
  async replicates({ server, remote, pages, db, copy, watched }) {
    const id = `${db}-out`;
    const state = async (wanted) => (await pages.replicationState(id)) === wanted;
    await pages.replicate(id, db, server.admin, `${remote.url}/${copy}`, { ...remote.login, password: 'wrong' });
    await until('the list says that it fails', () => state('Retrying'));
    assert.match(await pages.reason(id), server.documentsSayWhy ? /Name or password is incorrect/ : /will be tried/);
    await watched.picture('failing');
    await pages.mendReplication(id, remote.login);
    await until('the list says that it runs', () => state('Running'));
    await watched.picture('running');
    await until('the document is there', async () => (await remote.documents(copy)) === 1);
    const tasks = async () => (await pages.tasks()).filter((row) => row.includes(copy));
    assert.match((await tasks()).join(), /1 docs written/);
    await watched.picture('tasks');
    await pages.cancelReplication(id);
    await until('it is cancelled', async () => (await tasks()).length === 0);
  }
}

class FauxtonPages {
  constructor(page, url) {
    Object.assign(this, { page, url });
  }

  /** A page of it, loaded anew: a change of the hash alone may show what was known before. */
  async goto(hash) {
    await this.page.goto('about:blank');
    await this.page.goto(`${this.url}/_utils/#/${hash}`);
  }

  async logIn({ name, password }) {
    await this.goto('login');
    await this.page.fill('#username', name);
    await this.page.fill('#password', password);
    await this.page.click('#submit');
    await this.page.getByText('You have been logged in.').first().waitFor();
  }

  async makeDatabase(name) {
    await this.goto('_all_dbs');
    await this.page.click('.add-new-database-btn');
    await this.page.fill('#js-new-database-name', name);
    // A CouchDB that has partitions wants to know.
    const plain = this.page.locator('#non-partitioned-db');
    if (await plain.count()) await plain.check();
    await this.page.click('#js-create-database');
    await this.page.getByText('Database created successfully').first().waitFor();
  }

  async deleteDatabase(name) {
    await this.goto('_all_dbs');
    await this.page.locator(`[title="Delete ${name}"]`).click();
    await this.page.locator('.delete-db-modal input[type=text]').fill(name);
    await this.page.locator('.delete-db-modal button.delete').click();
    await this.page.locator(`[title="Delete ${name}"]`).waitFor({ state: 'detached' });
  }

  /** The databases that its list shows. */
  async databases() {
    await this.goto('_all_dbs');
    await this.page.locator('.faux__content, #dashboard-content').first().waitFor();
    await this.page.locator('a.db-name, table.databases a').first().waitFor({ timeout: 3000 }).catch(() => {});
    return this.page.locator('table.databases tbody tr td:first-child').allInnerTexts();
  }

  async write(db, doc) {
    await this.goto(`database/${encoded(db)}/_new`);
    await this.save(db, doc);
  }

  /** Changes fields of a document that is there. */
  async edit(db, id, fields) {
    await this.open(db, id);
    await this.save(db, { ...(await this.shownDoc()), ...fields });
  }

  async open(db, id) {
    await this.goto(`database/${encoded(db)}/${encoded(id)}`);
    await this.page.locator('.ace_content', { hasText: '_rev' }).waitFor();
  }

  async save(db, doc) {
    await this.page.locator('.ace_content', { hasText: '_id' }).click();
    await this.page.keyboard.press('Control+A');
    await this.page.keyboard.insertText(JSON.stringify(doc));
    await this.page.click('button.save-doc');
    await this.page.getByText('Document saved successfully').first().waitFor();
  }

  shownDoc = async () => JSON.parse(await this.page.locator('.ace_editor').evaluate((editor) => editor.env.editor.getValue()));

  async attach(db, id, file) {
    await this.open(db, id);
    await this.page.locator('button[title="Upload Attachment"], .upload').first().click();
    await this.page.setInputFiles('.upload-file-modal input[type=file]', file);
    await this.page.click('#upload-btn');
    await this.page.locator('.ace_content', { hasText: file.name }).waitFor();
  }

  /** Fills in the form for a continuous replication from a database here, with a document's id of its own. */
  async replicate(id, source, me, target, login) {
    await this.goto('replication/_create');
    await this.page.selectOption('select#replication-source', 'REPLICATION_SOURCE_LOCAL');
    await this.page.locator('.replication__input-react-select input').first().fill(source);
    await this.page.keyboard.press('Enter');
    await this.page.selectOption('#select-replication-source-auth', 'BASIC_AUTH');
    await this.page.fill('#replication-source-auth-username', me.name);
    await this.page.fill('#replication-source-auth-password', me.password);
    await this.page.locator('select#replication-target').first().selectOption('REPLICATION_TARGET_EXISTING_REMOTE_DATABASE');
    await this.page.fill('.replication__remote-connection-url', target);
    await this.page.selectOption('#select-replication-target-auth', 'BASIC_AUTH');
    await this.logInToTarget(login);
    await this.page.locator('select#replication-target').last().selectOption('REPLICATION_TYPE_CONTINUOUS');
    await this.page.fill('.replication__doc-name-input', id);
    await this.page.click('#replicate');
    await this.row(id).waitFor();
  }

  async logInToTarget({ name, password }) {
    await this.page.fill('#replication-target-auth-username', name);
    await this.page.fill('#replication-target-auth-password', password);
  }

  row = (id) => this.page.locator('.replication__table-row', { has: this.page.locator(`a[href$="${encoded(id)}"]`) });

  /** What the list of replications says of a document's. */
  async replicationState(id) {
    await this.goto('replication');
    return (await this.row(id).locator('.replication__row-status').innerText()).trim();
  }

  /** The text behind the row's mark of failure. */
  async reason(id) {
    await this.row(id).locator('.replication__row-btn--warning').click();
    return this.page.locator('.replication__error-doc-modal').innerText();
  }

  async mendReplication(id, login) {
    await this.goto(`replication/id/${encoded(id)}`);
    await this.page.locator('#replication-target-auth-password').waitFor();
    await this.logInToTarget(login);
    await this.page.click('#replicate');
    await this.page.locator('.replication__error-continue').click();
    await this.row(id).waitFor();
  }

  async cancelReplication(id) {
    await this.goto('replication');
    await this.row(id).locator('.icon-trash').click();
    await this.page.locator('.modal button', { hasText: 'Delete' }).click();
    await this.row(id).waitFor({ state: 'detached' });
  }

  /** The pages of jobs, for somebody to whom they may say anything. */
  lookAtTasks = () => this.lookAt('activetasks');
  lookAtReplications = () => this.lookAt('replication');

  async lookAt(hash) {
    await this.goto(hash);
    await this.page.waitForLoadState('networkidle');
  }

  /** The rows of the page of active tasks. */
  async tasks() {
    await this.goto('activetasks');
    await this.page.locator('#active-tasks-table tbody tr, .active-tasks tbody tr, table tbody tr').first().waitFor();
    return this.page.locator('table tbody tr').allInnerTexts();
  }
}
