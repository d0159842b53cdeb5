// End to end: what replications cost, in time, CPU, memory and sockets. Prints Markdown tables.
//
//   node bench/main.mjs [--only documents,attachments,trickle,idle,restart,filters,verify,store,many,proxy,pages] [--pairings local→local,…]
//                       [--docs 100000] [--runs 1] [--pouchdb-docs 10000] [--attached 1000x20KB]
//                       [--databases 10000] [--heartbeat 30000]
//   node bench/main.mjs --only idle [--jobs 1000,5000,10000] [--local] [--backlog 100] [--couchdb http://admin:pass@one:5984]
//   node bench/main.mjs --only idle --filtered 1000 [--couchdb http://admin:pass@one:5984]
//   node bench/main.mjs --attachment 1GiB
//   node bench/main.mjs --large 2000x1MB
//   node bench/main.mjs --couchdb http://admin:pass@one:5984,http://admin:pass@other:5984 [--runs 3] [--scale 0.2]
//                       [--only small,revisions,attachments,far-source,far-target,to-couchrep,from-couchrep,store]
//                       [--who couchdb,couchrep] [--at source|target]
//   node bench/main.mjs --only proxy [--couchdb http://admin:pass@one:5984] [--runs 3] [--scale 0.1]
//   node bench/main.mjs --only store [--couchdb http://admin:pass@one:5984] [--beside other/build/couchrep] [--runs 3]
//
// With `--couchdb`, CouchDB's own replicator and couchrep are measured beside CouchDBs (`couchdb.mjs`). In the others,
// every remote is a couchrep process of its own on this machine. Sources are filled and started anew before a run, so
// that CPU and memory are the replication's alone.
//
// `store` measures the embedded store as a database: what it writes and reads a second, with and without a
// `validate_doc_update`, beside the first CouchDB and beside another build of couchrep. `many` measures one process with
// very many databases, and with a client that waits at each of them. `proxy` measures what passes through to a CouchDB, beside nginx. `idle` measures very many jobs that are documents of
// `_replicator`, their sources in another couchrep, in a CouchDB, or (`--local`) in the same store. `pages` measures couchrep's own page before
// so many jobs, open 20 times.

import { parseArgs } from 'node:util';

import { filters, verify } from './chosen.mjs';
import { stopAll } from './children.mjs';
import { couchdb } from './couchdb.mjs';
import { idle } from './idle.mjs';
import { many } from './many.mjs';
import { pages } from './pages.mjs';
import { proxy } from './proxy.mjs';
import { restart } from './restart.mjs';
import { store } from './store.mjs';
import { attachment, attachments, documents, large } from './throughput.mjs';
import { trickle } from './trickle.mjs';

const SCENARIOS = { documents, attachments, trickle, idle, restart, filters, verify, store, many, proxy, pages };

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    pairings: { type: 'string' },
    docs: { type: 'string', default: '100000' },
    runs: { type: 'string' },
    'pouchdb-docs': { type: 'string', default: '10000' },
    attached: { type: 'string', default: '1000x20KB' },
    jobs: { type: 'string', default: '2000' },
    local: { type: 'boolean' },
    backlog: { type: 'string' },
    filtered: { type: 'string' },
    databases: { type: 'string', default: '10000' },
    heartbeat: { type: 'string', default: '30000' },
    attachment: { type: 'string' },
    large: { type: 'string' },
    couchdb: { type: 'string' },
    beside: { type: 'string' },
    scale: { type: 'string', default: '1' },
    who: { type: 'string', default: 'couchdb,couchrep' },
    at: { type: 'string', default: 'source' },
  },
});

async function main() {
  if (options.attachment) return attachment(options.attachment);
  if (options.large) return large(options.large);
  const named = options.only?.split(',');
  if (options.couchdb) {
    const replications = named?.filter((name) => !['store', 'idle', 'proxy'].includes(name));
    const { couchdb: urls, scale, runs: rounds = 3 } = options;
    if (replications?.length !== 0) await couchdb(urls, { ...options, names: replications, scale: Number(scale), rounds });
    if (named?.includes('store') ?? true) await store(options);
    if (named?.includes('idle')) await idle(options);
    if (named?.includes('proxy')) await proxy(options);
    return;
  }
  const chosen = named ?? Object.keys(SCENARIOS);
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
