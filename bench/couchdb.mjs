// Beside CouchDB's own replicator: the same data from one database to another, by CouchDB and by couchrep in turns.
//
// couchrep runs in a process of its own, CouchDB's replicator in one of the CouchDBs (`--at source` or `--at target`; from
// far away it is the near one that replicates). Each run has a target database of its own, and who goes first changes from
// round to round, so that caches and a busy machine treat both alike. A ratio is the median of the rounds' ratios.
//
// Settings of both CouchDBs are changed while it runs, in memory only: replications start at once, and no database is
// compacted in the middle of a run.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { cpuS, listener, runCouchrep, startCouchrep, stopAll } from './children.mjs';
import { ask, fillAttached, fillSmall } from './data.mjs';
import { farAway } from './relay.mjs';
import { median, number, table } from './table.mjs';

const ATTACHMENT_BYTES = 20_000;
// With it, a document has 1.2 KB.
const TEXT_BYTES = 1020;
/** How long a byte travels to or from a CouchDB that is far away. */
const DELAY_MS = 40;
// Deleted files and closed databases are CouchDB's work after a run: the next one shouldn't pay for it.
const REST_MS = 1000;
const NEVER = '1000000000';

/** What CouchDBs are told for the time of the bench: section, key, value, and what it is where nothing is configured. */
const SETTINGS = [
  ['replicator', 'startup_jitter', '0', '5000'],
  ['smoosh.ratio_dbs', 'min_priority', NEVER, '2.0'],
  ['smoosh.slack_dbs', 'min_priority', NEVER, '536870912'],
];

/** What is replicated. */
const DATA = {
  small: { what: 'documents of 1.2 KB', count: 50_000, fill: (db, count) => fillSmall(db, count, { textBytes: TEXT_BYTES }) },
  fewer: { what: 'documents of 1.2 KB', count: 10_000, fill: (db, count) => fillSmall(db, count, { textBytes: TEXT_BYTES }) },
  revisions: {
    what: 'documents of ten revisions',
    count: 15_000,
    fill: (db, count) => fillSmall(db, count, { textBytes: TEXT_BYTES, revisions: 10 }),
  },
  attachments: {
    what: 'documents with an attachment of 20 KB',
    count: 5_000,
    fill: (db, count) => fillAttached(db, count, ATTACHMENT_BYTES),
  },
};

/** What `--only` chooses from. Servers: two CouchDBs, the same ones far away, and couchrep's own store. */
const SCENARIOS = {
  small: { data: DATA.small, source: 'one', target: 'other' },
  revisions: { data: DATA.revisions, source: 'one', target: 'other' },
  attachments: { data: DATA.attachments, source: 'one', target: 'other' },
  'far-source': { data: DATA.small, source: 'one, far', target: 'other' },
  'far-target': { data: DATA.small, source: 'one', target: 'other, far' },
  'to-couchrep': { data: DATA.fewer, source: 'one', target: 'couchrep' },
  'from-couchrep': { data: DATA.fewer, source: 'couchrep', target: 'other' },
};

/**
 * Measures between two CouchDBs, `url1,url2` with an admin's credentials in each.
 * Options: `names` (of scenarios), `scale` (of all counts), `rounds`, `who` (`couchdb,couchrep`), `at` (`source`, `target`).
 */
export async function couchdb(urls, { names = Object.keys(SCENARIOS), scale, rounds, who, at }) {
  const [one, other] = urls.split(',').map((url) => url.replace(/\/+$/, ''));
  if (!other) throw new Error('--couchdb needs two URLs: --couchdb http://admin:pass@one:5984,http://admin:pass@other:5984');
  const unknown = names.find((name) => !(name in SCENARIOS));
  if (unknown) throw new Error(`${unknown} is none of ${Object.keys(SCENARIOS).join(', ')}`);
  const restore = [await configure(one), await configure(other)];
  const far = { one: await farAway(one, DELAY_MS), other: await farAway(other, DELAY_MS) };
  try {
    const servers = {
      one: { url: one, pid: listener(one) },
      other: { url: other, pid: listener(other) },
      'one, far': { url: far.one.url, pid: listener(one), near: one },
      'other, far': { url: far.other.url, pid: listener(other), near: other },
    };
    const bench = { servers, scale, rounds: Number(rounds), who: who.split(','), at };
    await compare(bench, names);
  } finally {
    await stopAll();
    Object.values(far).forEach((relay) => relay.close());
    for (const back of restore) await back();
  }
}

async function compare(bench, names) {
  const { row } = table(`CouchDB's own replicator and couchrep in turns, medians of ${bench.rounds}`, [
    "s, CouchDB's own", 's, couchrep', 'times as fast', 'slowest of each, s',
    "CPU s, CouchDB's own: source + target", 'CPU s, couchrep: source + target + couchrep', 'CPU, ratio', 'CPU s, relay',
  ]);
  const filled = new Map();
  try {
    for (const name of names) row(...await scenario(bench, SCENARIOS[name], filled));
  } finally {
    for (const url of filled.values()) await ask('DELETE', url).catch(() => undefined);
  }
}

/** All rounds of one scenario, as a line of the table. */
async function scenario(bench, { data, source, target }, filled) {
  const count = Math.round(data.count * bench.scale);
  // couchrep as a peer holds its data, so it lives as long as the scenario; else each run has a new one.
  const beside = [source, target].includes('couchrep') ? await startCouchrep() : undefined;
  const servers = { ...bench.servers, ...(beside && { couchrep: { url: beside.url, couchrep: beside } }) };
  const from = await sourceOf(servers, source, data, count, filled);
  const runs = { couchdb: [], couchrep: [] };
  for (let round = 0; round < bench.rounds; round += 1) {
    const order = round % 2 === 0 ? bench.who : bench.who.toReversed();
    for (const who of order) {
      const stage = { who, at: bench.at, source: servers[source], target: servers[target], beside };
      runs[who].push(await measure(stage, from, count, round === 0));
    }
  }
  await beside?.stop();
  return [`${number(count)} ${data.what}, ${way(source, target)}`, ...cells(runs)];
}

const place = (server) => (server === 'couchrep' ? 'couchrep' : `CouchDB${server.endsWith('far') ? `, ${DELAY_MS} ms away` : ''}`);
const way = (source, target) => `${place(source)} → ${place(target)}`;

/** Fills a source, once for all scenarios that use the same; answers its URL as a replicator is to be told. */
async function sourceOf(servers, name, data, count, filled) {
  const server = servers[name];
  const at = server.near ?? server.url;
  const key = `${at} ${data.what} ${count}`;
  if (!filled.has(key)) {
    const db = `${at}/couchrep-bench-${randomUUID()}`;
    if (!server.couchrep) filled.set(key, db);
    await data.fill(db, count);
    if (!server.couchrep) await compacted(db);
    return db;
  }
  return filled.get(key).replace(at, server.url);
}

/** A source as one that has rested has it. */
async function compacted(db) {
  await ask('POST', `${db}/_compact`, {});
  while ((await ask('GET', db)).compact_running) await sleep(100);
}

/** One run into a new database. */
async function measure({ who, at, source, target, beside }, from, count, verified) {
  const name = `couchrep-bench-${randomUUID()}`;
  await ask('PUT', `${target.near ?? target.url}/${name}`);
  const couchrep = beside ?? (who === 'couchrep' ? await startCouchrep() : undefined);
  const asked = who === 'couchrep' ? couchrep : couchdbThatReplicates(at, source, target);
  // What is its own couchrep knows by its name.
  const told = (url) => (who === 'couchrep' && beside ? url.replace(`${beside.url}/`, '') : url);
  const into = `${target.url}/${name}`;
  const reached = (url) => [source, target].reduce((near, server) => near.replace(server.url, server.near ?? server.url), url);
  try {
    await sleep(REST_MS);
    const cpu = () => [source.pid, target.pid, couchrep?.child.pid].map((pid) => (pid ? cpuS(pid) : NaN));
    const before = cpu();
    const relayBefore = process.cpuUsage();
    const start = performance.now();
    const answer = await ask('POST', `${asked.url}/_replicate`, { source: told(from), target: told(into) });
    const seconds = (performance.now() - start) / 1000;
    const used = cpu().map((now, index) => now - before[index]);
    const relayed = process.cpuUsage(relayBefore);
    const relay = source.near || target.near ? (relayed.user + relayed.system) / 1e6 : NaN;
    const session = answer.history[0];
    if (session.docs_written !== count || session.doc_write_failures !== 0) {
      throw new Error(`expected ${count} documents: ${JSON.stringify(session)}`);
    }
    // Fast is easy if documents may be missing.
    if (verified) await runCouchrep('verify', ...[from, into].map(reached), '--both', '--log', 'error');
    return { seconds, used, relay, cpu: used.filter((value) => !Number.isNaN(value)).reduce((sum, value) => sum + value, 0) };
  } finally {
    if (!beside) await couchrep?.stop();
    await ask('DELETE', `${target.near ?? target.url}/${name}`);
  }
}

/** The CouchDB whose replicator is asked: a near one, and where both are near, as chosen. */
function couchdbThatReplicates(at, source, target) {
  const able = [source, target].filter((server) => !server.near && !server.couchrep);
  return able.length === 1 ? able[0] : { source, target }[at];
}

function cells({ couchdb, couchrep }) {
  const seconds = (runs) => runs.map((run) => run.seconds);
  const shown = (value, digits) => (value === undefined || Number.isNaN(value) ? '–' : number(value, digits));
  const parts = (runs, count) =>
    Array.from({ length: count }, (_, index) => shown(median(runs.map((run) => run.used[index])), 1)).join(' + ');
  const ratios = (of) => couchdb.slice(0, couchrep.length).map((run, index) => of(run) / of(couchrep[index]));
  // Where couchrep is a peer, CouchDB's replicator has it work as well.
  const peers = couchdb.some((run) => !Number.isNaN(run.used[2])) ? 3 : 2;
  return [
    shown(median(seconds(couchdb)), 1),
    shown(median(seconds(couchrep)), 1),
    shown(median(ratios((run) => run.seconds)), 2),
    [couchdb, couchrep].map((runs) => (runs.length ? number(Math.max(...seconds(runs)), 1) : '–')).join(', '),
    parts(couchdb, peers),
    parts(couchrep, 3),
    shown(median(ratios((run) => run.cpu)), 2),
    shown(median([...couchdb, ...couchrep].map((run) => run.relay)), 1),
  ];
}

/** Tells a CouchDB what it is to do meanwhile, in memory only. Answers how to tell it what it did before. */
export async function configure(url) {
  const config = `${url}/_node/_local/_config`;
  const put = (section, key, value) => ask('PUT', `${config}/${section}/${key}`, value, { 'X-Couch-Persist': 'false' });
  const before = [];
  for (const [section, key, value, unset] of SETTINGS) {
    const old = await ask('GET', `${config}/${section}/${key}`).catch(() => unset);
    if (old === value) continue;
    await put(section, key, value);
    before.push([section, key, old]);
  }
  // Never deleted: that would crash the node's configuration listener.
  return async () => {
    for (const change of before) await put(...change);
  };
}
