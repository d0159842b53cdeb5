// A server on which scenarios are run one beside the other, and what is seen of each document.

import { randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { Words, isStart } from './words.mjs';

/** How long a document must look the same before it counts as settled, and how long that is waited for. */
const LIMITS = { settled: 2000, stage: 60_000 };
/** States in which nothing more happens for now. */
const RESTING = ['running', 'crashing', 'error', 'completed', 'failed'];

/** The server, what the scenarios have in common, and the names that only this run uses. */
export class Bench {
  static async at(server, data, limits) {
    const bench = new Bench();
    bench.prefix = `rd${randomBytes(4).toString('hex')}-`;
    bench.server = new URL(server);
    bench.data = new URL(data);
    bench.limits = { ...LIMITS, ...limits };
    bench.refused = `127.0.0.1:${await closedPort()}`;
    for (const system of ['_users', '_replicator']) await bench.ask('PUT', `/${system}`);
    return bench;
  }

  /** A URL with credentials: of whoever is given, else of the admin. */
  url(path, as, base = this.server) {
    const url = new URL(path, base);
    [url.username, url.password] = as === undefined ? [base.username, base.password] : [as.name, as.password];
    return url.href;
  }

  async ask(method, path, body, { as, base = this.server } = {}) {
    const { name, password } = as ?? { name: base.username, password: decodeURIComponent(base.password) };
    const headers = { 'Content-Type': 'application/json' };
    headers.Authorization = `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;
    const answer = await fetch(new URL(path, base.origin), { method, headers, body: body && JSON.stringify(body) });
    const text = await answer.text();
    try {
      return { status: answer.status, body: JSON.parse(text) };
    } catch {
      return { status: answer.status, body: text };
    }
  }

  /** Runs a scenario and gives what was seen of it. */
  async run({ id, about, run }) {
    const place = new Place(this, id);
    try {
      await run(place);
    } catch (error) {
      throw new Error(`${id}: ${error.message}`, { cause: error });
    } finally {
      await place.clear();
    }
    return new Words(this).of({ id, about, stages: place.stages });
  }
}

/** Where one scenario happens: its databases, users and document, and what was seen so far. */
export class Place {
  stages = [];
  #requests = [];
  #made = [];

  constructor(bench, id) {
    this.bench = bench;
    this.id = `${bench.prefix}${id}`;
    /** What the names of databases and users begin with. */
    this.name = this.id.replace(/[^a-z0-9]+/g, '-').replace(/-$/, '');
    this.replicator = '_replicator';
  }

  /** The scheduler's entry of a document. */
  entry(id = this.id) {
    return `/_scheduler/docs/${this.replicator}/${encodeURIComponent(id)}`;
  }

  /** A database of this scenario at the data server, by its URL with the admin's credentials. */
  at(name, as) {
    return this.bench.url(`/${this.name}-${name}`, as, this.bench.data);
  }

  get source() {
    return this.at('source');
  }

  get target() {
    return this.at('target');
  }

  /** Makes a source with three documents, and an empty target. */
  async databases() {
    await this.database('source', ['apple', 'bean', 'carrot'].map((_id) => ({ _id, fruit: _id === 'apple' })));
    await this.database('target', []);
  }

  async database(name, docs) {
    await this.#make(`/${this.name}-${name}`, this.bench.data);
    if (docs.length > 0) await this.fill(name, docs);
  }

  async fill(name, docs, more = {}) {
    const path = `/${this.name}-${name}/_bulk_docs`;
    const answer = await this.bench.ask('POST', path, { docs, ...more }, { base: this.bench.data });
    if (answer.status !== 201) throw new Error(JSON.stringify(answer));
  }

  /** Moves to a replicator database of its own, which these people may use. */
  async ownReplicator(...users) {
    this.replicator = encodeURIComponent(`${this.name}/_replicator`);
    await this.#make(`/${this.replicator}`);
    const security = { admins: { names: [], roles: [] }, members: { names: users.map(({ name }) => name), roles: [] } };
    await this.bench.ask('PUT', `/${this.replicator}/_security`, security);
  }

  async #make(path, base = this.bench.server) {
    const answer = await this.bench.ask('PUT', path, undefined, { base });
    if (![201, 202].includes(answer.status)) throw new Error(`${path}: ${JSON.stringify(answer)}`);
    this.#made.push({ path, base });
  }

  /** A user of the server, and of the one with the data. */
  async user(name) {
    const user = { name: `${this.name}-${name}`, password: `pw-${name}` };
    const doc = { ...user, type: 'user', roles: [] };
    for (const base of new Set([this.bench.server, this.bench.data].map(({ href }) => href))) {
      const path = `/_users/org.couchdb.user:${user.name}`;
      const answer = await this.bench.ask('PUT', path, doc, { base: new URL(base) });
      if (answer.status === 201) this.#made.push({ path, base: new URL(base), rev: answer.body.rev });
    }
    return user;
  }

  /** Asks, and keeps what was asked and answered. */
  async request(method, path, body, as) {
    const answer = await this.bench.ask(method, path, body, { as });
    const who = as ? { as: as.name } : {};
    this.#requests.push({ request: `${method} ${decodeURIComponent(path)}`, ...who, ...answer });
    return answer;
  }

  path(id = this.id) {
    return `/${this.replicator}/${encodeURIComponent(id)}`;
  }

  /** Writes the document, over the one that is there. */
  async put(doc, { as, id = this.id, keep = false } = {}) {
    const { status, body } = await this.bench.ask('GET', this.path(id));
    const old = status === 200 ? body : {};
    const rev = old._rev && { _rev: old._rev };
    return this.request('PUT', this.path(id), { ...(keep ? old : rev), ...doc }, as);
  }

  async remove({ as, id = this.id } = {}) {
    const { body } = await this.bench.ask('GET', this.path(id));
    return this.request('DELETE', `${this.path(id)}?rev=${body._rev}`, undefined, as);
  }

  /** Waits until the document (or these) looks the same for a while, and keeps how it looks. */
  async settle({ ids = [this.id], until = () => true, limit = this.bench.limits.stage } = {}) {
    const start = Date.now();
    for (let [last, since] = ['', start]; ; await sleep(100)) {
      const seen = await Promise.all(ids.map((id) => this.#look(id)));
      const words = JSON.stringify(new Words(this.bench).of(seen));
      if (words !== last) [last, since] = [words, Date.now()];
      const rests = seen.every((one) => rest(one)) && until(...seen);
      const settled = rests && Date.now() - since >= this.bench.limits.settled;
      if (settled || Date.now() - start > limit) {
        const unsettled = settled ? {} : { unsettled: true };
        this.stages.push({ requests: this.#requests, ...unsettled, seen });
        this.#requests = [];
        return seen;
      }
    }
  }

  async #look(id) {
    const { ask } = this.bench;
    const [document, entry, jobs, arrived] = await Promise.all([
      ask.call(this.bench, 'GET', this.path(id)),
      ask.call(this.bench, 'GET', this.entry(id)),
      ask.call(this.bench, 'GET', '/_scheduler/jobs?limit=10000'),
      ask.call(this.bench, 'GET', `/${this.name}-target/_changes?style=all_docs`, undefined, { base: this.bench.data }),
    ]);
    const database = decodeURIComponent(this.replicator);
    const job = jobs.body.jobs?.find((job) => job.doc_id === id && job.database === database);
    return {
      id,
      document: document.status === 200 ? document.body : document,
      docs: entry.status === 200 ? entry.body : entry,
      job: job ?? null,
      arrived: arrived.body.results?.map(leaves).sort() ?? null,
    };
  }

  /** Removes everything that the scenario made. */
  async clear() {
    const ids = new Set([this.id, ...this.stages.flatMap(({ seen }) => seen.map(({ id }) => id))]);
    for (const id of ids) {
      const { body } = await this.bench.ask('GET', this.path(id));
      if (body._rev) await this.bench.ask('DELETE', `${this.path(id)}?rev=${body._rev}`);
    }
    for (const { path, base, rev } of this.#made.reverse()) {
      await this.bench.ask('DELETE', rev ? `${path}?rev=${rev}` : path, undefined, { base });
    }
    await this.bench.ask('DELETE', `/${this.name}-target`, undefined, { base: this.bench.data });
  }
}

/** A row of a feed: an id, and how many leaves it has if it has several. */
const leaves = ({ id, changes }) => (changes.length > 1 ? `${id}, ${changes.length} leaves` : id);

/** Whether nothing more is to come: a state that lasts, and a running job that has caught up. */
function rest({ docs, job }) {
  if (docs.status) return true;
  return RESTING.includes(docs.state) && (docs.state !== 'running' || hasCaughtUp(job?.info));
}

/** CouchDB tells 0 pending changes only after the feed's first half minute; a checkpoint of all that came tells it too. */
function hasCaughtUp(info) {
  if (!info) return false;
  const { changes_pending: pending, through_seq: through, checkpointed_source_seq: checkpointed } = info;
  return pending === 0 || (checkpointed === through && !isStart(through));
}

async function closedPort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  return port;
}
