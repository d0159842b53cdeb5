// What a one-shot costs, in time, CPU and memory: small documents, large ones, attachments.

import { startPouchdbServer, stopAll } from './children.mjs';
import { ask, fillAttached, fillAttachment, fillLarge, fillSmall } from './data.mjs';
import { PAIRINGS, stage } from './stage.mjs';
import { number, table } from './table.mjs';

const UNITS = { '': 1, B: 1, KB: 1e3, MB: 1e6, GB: 1e9, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };
const COLUMNS = [
  'documents', 's', 'documents/s', 'MB/s', 'CPU s, replicator', 'CPU s, all', 'CPU µs a document, replicator',
  'peak MiB, replicator', 'peak MiB, largest',
];
/** Where an attachment or a large document passes the network once each way. */
const STREAMING = ['local→remote', 'remote→local'];

function size(text) {
  const match = /^(\d+(?:\.\d+)?) ?([KMG]i?B|B?)$/.exec(text);
  if (!match) throw new Error(`${text} is no size such as 1GiB`);
  return Math.round(match[1] * UNITS[match[2]]);
}

/** Small documents in all pairings, and a part of them by pouchdb-server. */
export async function documents(options) {
  const docs = Number(options.docs);
  const runs = Number(options.runs ?? 1);
  const pouchdbDocs = Math.min(docs, Number(options['pouchdb-docs']));
  const { row } = table(`${number(docs)} documents of about 1 KB`, COLUMNS);
  for (const pairing of options.pairings?.split(',') ?? PAIRINGS) {
    row(pairing, ...cells(await median(runs, () => couchrep(pairing, docs, (db) => fillSmall(db, docs)))));
  }
  if (options.pairings) return;
  row('pouchdb-server, local→local', ...cells(await median(runs, () => pouchdb(pouchdbDocs))));
  if (pouchdbDocs < docs) console.log(`\npouchdb-server moved ${number(pouchdbDocs)} documents only: it is too slow for more.`);
}

/** Documents with a small attachment each. */
export async function attachments(options) {
  const [count, each] = options.attached.split('x');
  const { row } = table(`${count} documents with an attachment of ${each}`, COLUMNS);
  for (const pairing of options.pairings?.split(',') ?? PAIRINGS) {
    const run = () => couchrep(pairing, Number(count), (db) => fillAttached(db, Number(count), size(each)));
    row(pairing, ...cells(await median(Number(options.runs ?? 1), run)));
  }
}

/** One attachment, as large as you like. */
export async function attachment(text) {
  const { row } = table(`One attachment of ${text}`, COLUMNS);
  for (const pairing of STREAMING) {
    row(pairing, ...cells(await couchrep(pairing, 1, (db) => fillAttachment(db, size(text)))));
  }
}

/** Large documents. */
export async function large(text) {
  const [count, each] = text.split('x');
  const { row } = table(`${count} documents of ${each}`, COLUMNS);
  for (const pairing of STREAMING) {
    row(pairing, ...cells(await couchrep(pairing, Number(count), (db) => fillLarge(db, Number(count), size(each)))));
  }
}

/** One run of couchrep with `fill` as the work. */
async function couchrep(pairing, docs, fill) {
  try {
    const staged = await stage(pairing, (url) => fill(`${url}/source`));
    return await measure(staged.servers, () => staged.replicate('source', 'target'), docs, staged.bytes);
  } finally {
    await stopAll();
  }
}

/** The same work by pouchdb-server: one process that is replicator, source and target. */
async function pouchdb(docs) {
  try {
    const server = await startPouchdbServer();
    const bytes = await fillSmall(`${server.url}/source`, docs);
    await ask('PUT', `${server.url}/target`);
    const replicate = () => ask('POST', `${server.url}/_replicate`, { source: 'source', target: 'target' });
    return await measure([server], replicate, docs, bytes);
  } finally {
    await stopAll();
  }
}

/** Replicates and answers what it took. `servers[0]` is the replicator. */
async function measure(servers, replicate, docs, bytes) {
  const before = servers.map((server) => server.cpuS());
  const start = performance.now();
  const answer = await replicate();
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

/** The run with the median time. */
async function median(runs, run) {
  const results = [];
  for (let n = 0; n < runs; n += 1) results.push(await run());
  return results.sort((one, other) => one.seconds - other.seconds)[Math.floor((runs - 1) / 2)];
}

function cells(run) {
  return [
    number(run.docs),
    number(run.seconds, 1),
    number(run.docs / run.seconds),
    number(run.bytes / 1e6 / run.seconds, 1),
    number(run.cpuReplicator, 2),
    number(run.cpuAll, 2),
    run.docs < 1000 ? '–' : number((run.cpuReplicator / run.docs) * 1e6),
    number(run.peakReplicator),
    number(run.peakAll),
  ];
}
