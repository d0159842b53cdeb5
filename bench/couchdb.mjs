// Beside CouchDB's own replicator: the same data from one CouchDB to another, by CouchDB and by couchrep in turns.
//
// CouchDB's runs in the source (`POST /_replicate` there), couchrep in a process of its own. Each run has a target database
// of its own, and who goes first changes from round to round, so that caches and a busy machine treat both alike.

import { randomUUID } from 'node:crypto';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { cpuS, runCouchrep, startCouchrep, stopAll } from './children.mjs';
import { ask, fillAttached, fillSmall } from './data.mjs';
import { number, table } from './table.mjs';

const ROUNDS = 3;
const ATTACHMENT_BYTES = 20_000;
// With it, a document has 1.2 KB.
const TEXT_BYTES = 1020;
// Deleted files and closed databases are CouchDB's work after a run: the next one shouldn't pay for it.
const REST_MS = 1000;

/** Measures all three kinds of data between two CouchDBs, `url1,url2` with an admin's credentials in each. */
export async function couchdb(urls, docs) {
  const [from, to] = urls.split(',').map((url) => url.replace(/\/+$/, ''));
  if (!to) throw new Error('--couchdb needs two URLs: --couchdb http://admin:pass@one:5984,http://admin:pass@other:5984');
  const [source, target] = [from, to].map((url) => ({ url, pid: listener(url) }));
  const scenarios = [
    ['documents of 1.2 KB', docs, (db, count) => fillSmall(db, count, { textBytes: TEXT_BYTES })],
    ['documents of ten revisions', docs / 2, (db, count) => fillSmall(db, count, { textBytes: TEXT_BYTES, revisions: 10 })],
    ['documents with an attachment of 20 KB', docs / 10, (db, count) => fillAttached(db, count, ATTACHMENT_BYTES)],
  ];
  for (const [what, count, fill] of scenarios) await compare(what, Math.round(count), fill, source, target);
}

async function compare(what, count, fill, source, target) {
  const { row } = table(`${number(count)} ${what} from CouchDB to CouchDB, median of ${ROUNDS}`, [
    's', 'documents/s', 'CPU s, source', 'CPU s, target', 'CPU s, couchrep', 'slowest, s',
  ]);
  const from = `${source.url}/couchrep-bench-${randomUUID()}`;
  const runs = { couchdb: [], couchrep: [] };
  try {
    await fill(from, count);
    for (let round = 0; round < ROUNDS; round += 1) {
      const order = round % 2 === 0 ? ['couchdb', 'couchrep'] : ['couchrep', 'couchdb'];
      for (const who of order) runs[who].push(await measure(who, from, source, target, count, round === 0));
    }
  } finally {
    await stopAll();
    await ask('DELETE', from).catch(() => undefined);
  }
  const [couchdb, couchrep] = [runs.couchdb, runs.couchrep].map(median);
  row("CouchDB's own replicator", ...cells(couchdb, count));
  row('couchrep', ...cells(couchrep, count));
  console.log(`\ncouchrep was ${number(couchdb.seconds / couchrep.seconds, 1)} times as fast.`);
}

/** One run into a new database. */
async function measure(who, from, source, target, count, verified) {
  const into = `${target.url}/couchrep-bench-${randomUUID()}`;
  await ask('PUT', into);
  const couchrep = who === 'couchrep' ? await startCouchrep() : undefined;
  try {
    await sleep(REST_MS);
    const cpu = () => [source.pid, target.pid, couchrep?.child.pid].map((pid) => (pid ? cpuS(pid) : NaN));
    const before = cpu();
    const start = performance.now();
    const answer = await ask('POST', `${couchrep?.url ?? source.url}/_replicate`, { source: from, target: into });
    const seconds = (performance.now() - start) / 1000;
    const used = cpu().map((now, index) => now - before[index]);
    const session = answer.history[0];
    if (session.docs_written !== count || session.doc_write_failures !== 0) {
      throw new Error(`expected ${count} documents: ${JSON.stringify(session)}`);
    }
    // Fast is easy if documents may be missing.
    if (verified) await runCouchrep('verify', from, into, '--both', '--log', 'error');
    return { seconds, used };
  } finally {
    await couchrep?.stop();
    await ask('DELETE', into);
  }
}

function median(runs) {
  const sorted = runs.toSorted((one, other) => one.seconds - other.seconds);
  return { ...sorted[Math.floor(runs.length / 2)], slowest: sorted.at(-1).seconds };
}

function cells({ seconds, used, slowest }, count) {
  const cpu = used.map((value) => (Number.isNaN(value) ? '–' : number(value, 1)));
  return [number(seconds, 1), number(count / seconds), ...cpu, number(slowest, 1)];
}

/** The process that listens on a URL's port on this machine, if it is on this machine and may be looked at. */
function listener(url) {
  const { hostname, port } = new URL(url);
  if (!['127.0.0.1', 'localhost', '[::1]'].includes(hostname)) return undefined;
  const hex = Number(port || 80).toString(16).toUpperCase().padStart(4, '0');
  const tables = ['tcp', 'tcp6'].flatMap((name) => readFileSync(`/proc/net/${name}`, 'utf8').split('\n').slice(1));
  const LISTEN = '0A';
  const row = tables.map((line) => line.trim().split(/\s+/)).find(([, at, , state]) => at?.endsWith(`:${hex}`) && state === LISTEN);
  const holds = (pid) => {
    try {
      return readdirSync(`/proc/${pid}/fd`).some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${row[9]}]`);
    } catch {
      // Not ours, or gone meanwhile.
      return false;
    }
  };
  return row && readdirSync('/proc').filter((name) => /^\d+$/.test(name)).find(holds);
}
