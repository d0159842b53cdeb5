// Very many jobs that are documents of `_replicator`: their databases, and how one knows what has arrived.
//
// Each job has a source database of its own and a target database in the couchrep that is measured. The sources are in
// another couchrep, in a CouchDB, or beside the targets. That all has arrived is learnt from the target's own
// `_db_updates`, which costs it next to nothing: only databases that were written to are looked at.

import { get } from 'node:http';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

import { familyCpuS, listener, startCouchrep } from './children.mjs';
import { ask } from './data.mjs';
import { each } from './stage.mjs';
import { request } from './wire.mjs';

const DOCS_PER_REQUEST = 1000;
/** Databases that `_dbs_info` may be asked for at once. */
const NAMES_PER_REQUEST = 100;
const LOOK_MS = 250;
const PATIENCE_S = 900;
const ARRIVAL_PATIENCE_MS = 60_000;

/** Where the sources are. */
export class Sources {
  /** Fills them. A couchrep is started anew then, so that its memory and CPU are those of what is measured. */
  static async filled({ couchdb }, count, docs) {
    const server = couchdb ? undefined : await startCouchrep();
    const url = couchdb?.split(',')[0].replace(/\/+$/, '') ?? server.url;
    const sources = new Sources(url, server, couchdb ? `couchrep-bench-${process.pid}-` : 'source-', count);
    try {
      // Without it a CouchDB has no `_db_updates`.
      if (couchdb) sources.madeFeed = await ask('PUT', `${url}/_global_changes`).then(() => true, () => false);
      await each(count, (n) => sources.make(n, docs));
    } catch (error) {
      await sources.remove();
      throw error;
    }
    if (server) sources.moved(await server.restart());
    return sources;
  }

  constructor(url, server, prefix, count) {
    Object.assign(this, { url, server, prefix, count });
  }

  /** Their server was started anew. */
  moved(server) {
    Object.assign(this, { server, url: server.url });
  }

  async make(n, docs) {
    // A CouchDB on one machine; others ignore it.
    await ask('PUT', `${this.db(n)}?q=1&n=1`);
    const body = { docs: Array.from({ length: docs }, (_, doc) => ({ _id: `doc-${doc}`, n, text: 'x'.repeat(100) })) };
    await ask('POST', `${this.db(n)}/_bulk_docs`, body);
  }

  db(n) {
    return `${this.url}/${this.prefix}${n}`;
  }

  /** CPU seconds so far, if it is on this machine. */
  cpuS() {
    const pid = this.server?.child.pid ?? listener(this.url);
    return pid ? familyCpuS(pid) : NaN;
  }

  /** Removes what was made in a CouchDB; a couchrep goes with its data. */
  async remove() {
    if (this.server) return;
    await each(this.count, (n) => ask('DELETE', this.db(n)).catch(() => undefined));
    if (this.madeFeed) await ask('DELETE', `${this.url}/_global_changes`);
  }
}

export const target = (n) => `target-${n}`;

/** Writes the documents of the jobs, whose fields `job(n)` tells. */
export async function post(replicator, count, job) {
  for (let first = 0; first < count; first += DOCS_PER_REQUEST) {
    const numbers = Array.from({ length: Math.min(count - first, DOCS_PER_REQUEST) }, (_, n) => first + n);
    const docs = numbers.map((n) => ({ _id: `job-${n}`, continuous: true, ...job(n) }));
    const rows = await ask('POST', `${replicator.url}/_replicator/_bulk_docs`, { docs });
    const refused = rows.find((row) => row.error);
    if (refused) throw new Error(`a job was refused: ${JSON.stringify(refused)}`);
  }
}

/** Waits until the scheduler lists so many jobs. */
export async function listed(replicator, count) {
  while ((await ask('GET', `${replicator.url}/_scheduler/jobs?limit=1`)).total_rows < count) await sleep(LOOK_MS);
}

/** The databases of a server that were written to, as it tells. */
export class News {
  #updated = new Set();
  #awaited = new Map();

  /** From the server's start on. */
  static async follow(server) {
    const news = new News();
    news.request = get(`${server.url}/_db_updates?feed=continuous&heartbeat=10000`, { agent: false });
    const [answer] = await once(news.request, 'response');
    if (answer.statusCode !== 200) throw new Error(`_db_updates: ${answer.statusCode}`);
    news.request.on('error', () => undefined);
    const lines = createInterface(answer);
    lines.on('line', (line) => {
      const row = line && JSON.parse(line);
      if (row.type !== 'updated') return;
      news.#updated.add(row.db_name);
      news.#awaited.get(row.db_name)?.();
    });
    lines.on('error', () => undefined);
    return news;
  }

  /** Those since it was last asked. */
  take() {
    const taken = [...this.#updated];
    this.#updated.clear();
    return taken;
  }

  /** Waits until a database is written to. */
  next(name) {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`nothing arrived in ${name}`)), ARRIVAL_PATIENCE_MS);
      this.#awaited.set(name, () => {
        clearTimeout(late);
        this.#awaited.delete(name);
        resolve();
      });
    });
  }

  end() {
    this.request.destroy();
  }
}

/** Waits until every target has `docs(n)` documents. */
export async function caughtUp(server, news, count, docs) {
  const missing = new Map(Array.from({ length: count }, (_, n) => [target(n), docs(n)]));
  const patience = performance.now() + PATIENCE_S * 1000;
  while (missing.size > 0) {
    if (performance.now() > patience) throw new Error(`${missing.size} jobs didn't catch up in ${PATIENCE_S} s: ${[...missing][0]}`);
    const changed = news.take().filter((name) => missing.has(name));
    for (let first = 0; first < changed.length; first += NAMES_PER_REQUEST) {
      const keys = changed.slice(first, first + NAMES_PER_REQUEST);
      for (const { key, info } of await ask('POST', `${server.url}/_dbs_info`, { keys })) {
        if (info?.doc_count >= missing.get(key)) missing.delete(key);
      }
    }
    if (missing.size > 0) await sleep(LOOK_MS);
  }
}

/** Writes a document to a source, and answers the milliseconds from then until the target is written to. */
export async function arrival(news, writer, url, targetDb, doc = {}) {
  const arrived = news.next(targetDb);
  const start = performance.now();
  await writer.send(request('PUT', url, JSON.stringify(doc)), 201);
  await arrived;
  return performance.now() - start;
}
