// End to end: what replications cost, in time, CPU, memory and sockets. Prints Markdown tables.
//
//   node bench/main.mjs [--only documents,attachments,trickle,idle,restart,filters,verify] [--pairings local→local,…]
//                       [--docs 100000] [--runs 1] [--pouchdb-docs 10000] [--attached 1000x20KB] [--jobs 2000]
//   node bench/main.mjs --attachment 1GiB
//   node bench/main.mjs --large 2000x1MB
//   node bench/main.mjs --couchdb http://admin:pass@one:5984,http://admin:pass@other:5984 [--runs 3] [--scale 0.2]
//                       [--only small,revisions,attachments,far-source,far-target,to-couchrep,from-couchrep]
//                       [--who couchdb,couchrep] [--at source|target]
//
// The last one measures CouchDB's own replicator and couchrep beside CouchDBs (`couchdb.mjs`). In the others,
// every remote is a couchrep process of its own on this machine. Sources are filled and started anew before a run, so
// that CPU and memory are the replication's alone.

import { parseArgs } from 'node:util';

import { filters, verify } from './chosen.mjs';
import { stopAll } from './children.mjs';
import { couchdb } from './couchdb.mjs';
import { idle } from './idle.mjs';
import { restart } from './restart.mjs';
import { attachment, attachments, documents, large } from './throughput.mjs';
import { trickle } from './trickle.mjs';

const SCENARIOS = { documents, attachments, trickle, idle, restart, filters, verify };

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    pairings: { type: 'string' },
    docs: { type: 'string', default: '100000' },
    runs: { type: 'string' },
    'pouchdb-docs': { type: 'string', default: '10000' },
    attached: { type: 'string', default: '1000x20KB' },
    jobs: { type: 'string', default: '2000' },
    attachment: { type: 'string' },
    large: { type: 'string' },
    couchdb: { type: 'string' },
    scale: { type: 'string', default: '1' },
    who: { type: 'string', default: 'couchdb,couchrep' },
    at: { type: 'string', default: 'source' },
  },
});

async function main() {
  if (options.attachment) return attachment(options.attachment);
  if (options.large) return large(options.large);
  if (options.couchdb) return couchdb(options.couchdb, { ...options, scale: Number(options.scale), rounds: options.runs ?? 3 });
  const chosen = options.only?.split(',') ?? Object.keys(SCENARIOS);
  const unknown = chosen.find((name) => !(name in SCENARIOS));
  if (unknown) throw new Error(`${unknown} is none of ${Object.keys(SCENARIOS).join(', ')}`);
  for (const name of chosen) await SCENARIOS[name](options);
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => stopAll().finally(() => process.exit(1)));
}
try {
  await main();
} finally {
  await stopAll();
}
