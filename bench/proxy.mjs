// What it costs to ask a CouchDB through couchrep: the same requests directly, through couchrep and, where it is installed, through nginx
// as a plain proxy, in turns; who goes first changes from round to round.
//
// Without `--couchdb` a couchrep with an embedded store plays the CouchDB. It answers ten times as fast, so that the proxies' own cost is
// a larger part of all. `added` is to what it takes directly in the same round. CPU and memory are the proxy's alone, nginx's master and
// workers together; on few cores the CouchDB and the client take theirs from it.

import { randomUUID } from 'node:crypto';

import { nginx, startCouchrep, stopAll } from './children.mjs';
import { ask, fillAttachment, fillSmall, noise, send, smallDoc } from './data.mjs';
import { median, number, part, table } from './table.mjs';
import { Connection, request } from './wire.mjs';

const READERS = 32;
const TURN_MS = 4000;
const BATCHES = 12;
const DOCS_PER_BATCH = 500;
const FEEDS = 2;
const MIB = 1 << 20;
const ADMIN = 'bench:bench';

export async function proxy({ couchdb, runs, docs, scale = '1' }) {
  const rounds = Number(runs ?? 3);
  const rows = Math.ceil(Number(docs) * Number(scale));
  const bytes = Math.ceil(1024 * Number(scale)) * MIB;
  const origin = couchdb?.split(',')[0].replace(/\/+$/, '') ?? (await startCouchrep(undefined, { admin: ADMIN })).url.replace('://', `://${ADMIN}@`);
  const { protocol, host, username, password } = new URL(origin);
  const plain = `${protocol}//${host}`;
  const through = (server) => ({ server, url: server.url.replace('://', `://${username}:${password}@`) });
  const subjects = { directly: { url: origin } };
  const db = `couchrep-bench-${randomUUID()}`;
  try {
    subjects.couchrep = through(await startCouchrep(undefined, { beside: plain }));
    const other = await nginx(plain);
    if (other) subjects.nginx = through(other);
    else console.log('nginx is not installed: it is left out');
    await fillSmall(`${origin}/${db}`, rows);
    await fillAttachment(`${origin}/${db}-attached`, bytes);
    for (const [title, columns, measure] of scenarios(db, rows, bytes)) {
      const { row } = table(`${title}, medians of ${rounds}`, columns);
      const found = await inTurns(subjects, rounds, measure);
      for (const name of Object.keys(subjects)) row(name, ...cells(found, name, columns));
    }
    const { row } = table('Memory of the proxy at the end', ['peak, MiB', 'now, MiB']);
    for (const [name, { server }] of Object.entries(subjects)) {
      if (server) row(name, number(server.peakMiB(), 1), number(server.residentKiB() / 1024, 1));
    }
  } finally {
    for (const name of [db, `${db}-attached`]) await ask('DELETE', `${origin}/${name}`).catch(() => undefined);
    await stopAll();
  }
}

const RATES = ['a second', 'p50, ms', 'p99, ms', 'added p50, ms', 'added p99, ms', 'CPU µs each, proxy'];

/** What is measured: a title, its columns, and who does it once for a subject. */
function scenarios(db, rows, bytes) {
  return [
    [`GET of a document of 1 KB, ${READERS} connections`, RATES, (url) => reads(`${url}/${db}`, rows)],
    [`_bulk_docs of ${DOCS_PER_BATCH}`, RATES, (url) => batches(url)],
    [`_changes of ${number(rows)} rows`, RATES, (url) => feeds(`${url}/${db}`)],
    [`An attachment of ${number(bytes / MIB)} MiB, written`, RATES, (url) => written(url, bytes)],
    [`An attachment of ${number(bytes / MIB)} MiB, read`, RATES, (url) => read(`${url}/${db}-attached`, bytes)],
  ];
}

/** Of each subject the figures of its rounds. */
async function inTurns(subjects, rounds, measure) {
  const found = Object.fromEntries(Object.keys(subjects).map((name) => [name, []]));
  const names = Object.keys(subjects);
  for (let round = 0; round < rounds; round += 1) {
    for (const name of [...names.slice(round % names.length), ...names.slice(0, round % names.length)]) {
      const { url, server } = subjects[name];
      const cpuS = server?.cpuS() ?? 0;
      const { times, atOnce = 1 } = await measure(url);
      const [p50, p99] = [part(times, 0.5), part(times, 0.99)];
      found[name].push({ rate: (times.length * 1000 * atOnce) / sum(times), p50, p99, cpu: (((server?.cpuS() ?? 0) - cpuS) / times.length) * 1e6 });
    }
  }
  return found;
}

const sum = (values) => values.reduce((all, value) => all + value, 0);

function cells(found, name) {
  const of = (value) => median(found[name].map(value));
  const added = (value) => median(found[name].map((one, round) => value(one) - value(found.directly[round])));
  const isProxy = name !== 'directly';
  return [
    number(of(({ rate }) => rate), 1),
    number(of(({ p50 }) => p50), 2),
    number(of(({ p99 }) => p99), 2),
    ...(isProxy ? [number(added(({ p50 }) => p50), 2), number(added(({ p99 }) => p99), 2), number(of(({ cpu }) => cpu))] : ['–', '–', '–']),
  ];
}

async function reads(db, rows) {
  const times = [];
  const until = performance.now() + TURN_MS;
  const reader = async (_, first) => {
    const connection = await Connection.open(db);
    for (let n = first; performance.now() < until; n += READERS) {
      const get = request('GET', `${db}/${smallDoc((n * 7919) % rows)._id}`);
      const start = performance.now();
      await connection.send(get, 200);
      times.push(performance.now() - start);
    }
    connection.close();
  };
  await Promise.all(Array.from({ length: READERS }, reader));
  return { times, atOnce: READERS };
}

async function batches(url) {
  const db = `${url}/couchrep-bench-${randomUUID()}`;
  await ask('PUT', db);
  const posts = Array.from({ length: BATCHES }, (_, batch) => {
    const docs = Array.from({ length: DOCS_PER_BATCH }, (_, n) => smallDoc(batch * DOCS_PER_BATCH + n));
    return request('POST', `${db}/_bulk_docs`, JSON.stringify({ docs }));
  });
  const connection = await Connection.open(db);
  const times = [];
  for (const post of posts) times.push(await timed(() => connection.send(post, 201)));
  connection.close();
  await ask('DELETE', db);
  return { times };
}

async function feeds(db) {
  const connection = await Connection.open(db);
  const get = request('GET', `${db}/_changes`);
  const times = [];
  for (let n = 0; n < FEEDS; n += 1) times.push(await timed(() => connection.send(get, 200)));
  connection.close();
  return { times };
}

/** Into a database of its own, which goes at once: nothing is written over in CouchDB's files. */
async function written(url, bytes) {
  const db = `${url}/couchrep-bench-${randomUUID()}`;
  await ask('PUT', db);
  const headers = { 'Content-Type': 'application/octet-stream', 'Content-Length': bytes };
  const time = await timed(() => send('PUT', `${db}/attached/big.bin`, headers, repeated(bytes)));
  await ask('DELETE', db);
  return { times: [time] };
}

/** The same block again and again: making up others would take longer than sending them. */
function* repeated(bytes) {
  const [block] = noise(MIB, 42);
  for (let left = bytes; left > 0; left -= MIB) yield block;
}

async function read(db, bytes) {
  const connection = await Connection.open(db);
  const get = request('GET', `${db}/attached/big.bin`);
  const time = await timed(async () => {
    const read = await connection.send(get, 200);
    if (read !== bytes) throw new Error(`${read} bytes instead of ${bytes}`);
  });
  connection.close();
  return { times: [time] };
}

async function timed(work) {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
