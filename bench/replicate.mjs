// End to end: what a replication costs, in time, CPU and memory. Prints Markdown tables.
//
//   node bench/replicate.mjs [--docs 100000] [--runs 1] [--pouchdb-docs 10000] [--only local→local,…]
//   node bench/replicate.mjs --attachment 1GiB
//   node bench/replicate.mjs --large 2000x1MB
//
// Every remote is a couchrep process of its own. Source and target are filled and started anew before each run, so that
// CPU and peak memory are the replication's alone; "replicator" is the process that was asked.

import { availableParallelism, cpus } from 'node:os';
import { parseArgs } from 'node:util';

import { startCouchrep, startPouchdbServer, stopAll } from './children.mjs';
import { ask, fillAttachment, fillLarge, fillSmall } from './data.mjs';

const UNITS = { '': 1, B: 1, KB: 1e3, MB: 1e6, GB: 1e9, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };
const PAIRINGS = ['local→local', 'remote→local', 'local→remote', 'remote→remote'];

function size(text) {
  const match = /^(\d+(?:\.\d+)?) ?([KMG]i?B|B?)$/.exec(text);
  if (!match) throw new Error(`${text} is no size such as 1GiB`);
  return Math.round(match[1] * UNITS[match[2]]);
}

const { values: options } = parseArgs({
  options: {
    docs: { type: 'string', default: '100000' },
    runs: { type: 'string', default: '1' },
    'pouchdb-docs': { type: 'string', default: '10000' },
    only: { type: 'string' },
    attachment: { type: 'string' },
    large: { type: 'string' },
  },
});

/** Replicates and answers what it took. `servers[0]` is the replicator. */
async function measure(servers, body, docs, bytes) {
  const before = servers.map((server) => server.cpuS());
  const start = performance.now();
  const answer = await ask('POST', `${servers[0].url}/_replicate`, body);
  const seconds = (performance.now() - start) / 1000;
  const cpu = servers.map((server, index) => server.cpuS() - before[index]);
  const session = answer.history?.[0] ?? answer;
  if (session.docs_written !== docs || session.doc_write_failures !== 0) {
    throw new Error(`expected ${docs} documents: ${JSON.stringify(answer)}`);
  }
  return {
    docs,
    seconds,
    bytes,
    cpuReplicator: cpu[0],
    cpuAll: cpu.reduce((sum, one) => sum + one, 0),
    peakReplicator: servers[0].peakMiB(),
    peakAll: Math.max(...servers.map((server) => server.peakMiB())),
  };
}

/** One run of couchrep with `fill` as the work. */
async function couchrep(pairing, docs, fill) {
  const [from, to] = pairing.split('→');
  let replicator = await startCouchrep();
  let source = from === 'local' ? replicator : await startCouchrep();
  const bytes = await fill(`${source.url}/source`);
  // The fill's memory and CPU are nobody's business.
  source = await source.restart();
  if (from === 'local') replicator = source;
  const target = to === 'local' ? replicator : await startCouchrep();
  await ask('PUT', `${target.url}/target`);
  const body = {
    source: source === replicator ? 'source' : `${source.url}/source`,
    target: target === replicator ? 'target' : `${target.url}/target`,
  };
  try {
    return await measure([...new Set([replicator, source, target])], body, docs, bytes);
  } finally {
    await stopAll();
  }
}

/** The same work by pouchdb-server: one process that is replicator, source and target. */
async function pouchdb(docs) {
  const server = await startPouchdbServer();
  try {
    const bytes = await fillSmall(`${server.url}/source`, docs);
    await ask('PUT', `${server.url}/target`);
    return await measure([server], { source: 'source', target: 'target' }, docs, bytes);
  } finally {
    await stopAll();
  }
}

/** The run with the median time. */
async function median(runs, run) {
  const results = [];
  for (let n = 0; n < runs; n += 1) results.push(await run());
  return results.sort((one, other) => one.seconds - other.seconds)[Math.floor((runs - 1) / 2)];
}

const number = (value, digits = 0) =>
  value.toLocaleString('en', { maximumFractionDigits: digits, minimumFractionDigits: digits });

function header(title) {
  console.log(`\n${title}, on ${availableParallelism()} cores (${cpus()[0].model.trim()}):\n`);
  console.log(
    '| | documents | s | documents/s | MB/s | CPU s, replicator | CPU s, all | CPU µs a document, replicator |' +
      ' peak MiB, replicator | peak MiB, largest |',
  );
  console.log(`|${' --- |'.repeat(10)}`);
}

function row(name, run) {
  const cells = [
    name,
    number(run.docs),
    number(run.seconds, 1),
    number(run.docs / run.seconds),
    number(run.bytes / 1e6 / run.seconds, 1),
    number(run.cpuReplicator, 2),
    number(run.cpuAll, 2),
    run.docs < 10_000 ? '–' : number((run.cpuReplicator / run.docs) * 1e6),
    number(run.peakReplicator),
    number(run.peakAll),
  ];
  console.log(`| ${cells.join(' | ')} |`);
}

async function main() {
  const runs = Number(options.runs);
  if (options.attachment) {
    const bytes = size(options.attachment);
    header(`One attachment of ${options.attachment}`);
    for (const pairing of ['local→remote', 'remote→local']) {
      row(pairing, await couchrep(pairing, 1, (db) => fillAttachment(db, bytes)));
    }
    return;
  }
  if (options.large) {
    const [count, each] = options.large.split('x');
    header(`${count} documents of ${each}`);
    for (const pairing of ['local→remote', 'remote→local']) {
      row(pairing, await couchrep(pairing, Number(count), (db) => fillLarge(db, Number(count), size(each))));
    }
    return;
  }
  const docs = Number(options.docs);
  const pouchdbDocs = Math.min(docs, Number(options['pouchdb-docs']));
  header(`${number(docs)} documents of about 1 KB`);
  for (const pairing of PAIRINGS.filter((pairing) => !options.only || options.only.split(',').includes(pairing))) {
    row(pairing, await median(runs, () => couchrep(pairing, docs, (db) => fillSmall(db, docs))));
  }
  if (!options.only || options.only.includes('pouchdb')) {
    row('pouchdb-server, local→local', await median(runs, () => pouchdb(pouchdbDocs)));
    if (pouchdbDocs < docs) console.log(`\npouchdb-server moved ${number(pouchdbDocs)} documents only: it is too slow for more.`);
  }
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => stopAll().finally(() => process.exit(1)));
}
try {
  await main();
} finally {
  await stopAll();
}
