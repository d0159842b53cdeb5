// What a server makes of replicator documents, beside what CouchDB 3.5 makes of them.
//
//   node replicator-docs.mjs [SERVER] [--data URL] [--only ID,…] [--at-once 4]    a line of JSON for each document
//   node replicator-docs.mjs [SERVER] --record [--file FILE]                     writes them to FILE instead
//   node replicator-docs.mjs [SERVER] --compare [--file FILE]                    prints what differs from FILE, and why
//
// SERVER is a CouchDB or a couchrep with an admin's name and password, http://admin:password@host:port; without it, a
// couchrep is started. It runs the documents; sources and targets are databases of the server at --data, the same one by
// default. FILE is tests/data/replicator-docs.json by default, which a CouchDB 3.5.0 gave. `--compare` ends with 1 if
// something differs that `replicator-docs/expected.mjs` doesn't explain, or if that explains what doesn't differ.
//
// To record, let the CouchDB look after its jobs more often, until it is restarted:
//
//   for setting in 'interval "5000"' 'startup_jitter "0"' 'checkpoint_interval "1000"'; do
//     set -- $setting
//     curl -X PUT $SERVER/_node/_local/_config/replicator/$1 -d "$2" -H 'X-Couch-Persist: false'
//   done
//
// Each document is written into databases and by users of its own, which are removed at the end.

import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

import { differences, reasons, sideBySide, tableOf } from './replicator-docs/compare.mjs';
import { Bench } from './replicator-docs/bench.mjs';
import { scenarios } from './replicator-docs/scenarios.mjs';

const RECORDED = fileURLToPath(new URL('../data/replicator-docs.json', import.meta.url));

/** What CouchDB gave. */
export const recorded = async (file = RECORDED) => JSON.parse(await readFile(file, 'utf8'));

/** Runs the scenarios, some at once; gives what was seen of each, in the order of the list. */
export async function observe(server, { data = server, only, atOnce = 4, limits, seen = () => {} } = {}) {
  const bench = await Bench.at(server, data, limits);
  const chosen = scenarios.filter(({ id }) => !only || only.includes(id));
  const all = new Array(chosen.length);
  const left = chosen.entries();
  const worker = async () => {
    for (const [index, scenario] of left) {
      all[index] = await bench.run(scenario);
      seen(all[index]);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return all;
}

/** A couchrep for this run, and how it is stopped. */
export async function couchrep() {
  const { startCouchrep } = await import('./support.mjs');
  const { url, stop } = await startCouchrep({
    admin: { name: 'admin', password: 'pass' },
    args: ['--checkpoint-interval', '1s', '--retries-per-request', '2'],
  });
  return { url: url.replace('//', '//admin:pass@'), stop };
}

async function main() {
  const { values: options, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      data: { type: 'string' },
      only: { type: 'string' },
      'at-once': { type: 'string', default: '4' },
      record: { type: 'boolean' },
      compare: { type: 'boolean' },
      file: { type: 'string', default: RECORDED },
    },
  });
  const server = positionals.length > 0 ? { url: positionals[0], stop() {} } : await couchrep();
  const only = options.only?.split(',');
  const print = (one) => console.log(JSON.stringify(one));
  const seen = options.record || options.compare ? ({ id }) => console.error(id) : print;
  const atOnce = Number(options['at-once']);
  const all = await observe(server.url, { data: options.data, only, atOnce, seen }).finally(server.stop);
  if (options.record) await writeFile(options.file, `${JSON.stringify(all, null, 2)}\n`);
  if (options.compare) {
    const couchdb = (await recorded(options.file)).filter(({ id }) => !only || only.includes(id));
    const { explained, unexplained, unused } = differences(couchdb, all);
    const tables = [sideBySide(couchdb, all), reasons(explained)];
    if (unexplained.length > 0) tables.push(tableOf(unexplained));
    console.log(`${tables.join('\n\n')}\n`);
    const stale = only ? [] : unused;
    for (const { why, at } of stale) console.log(`explains nothing: ${at}: ${why}`);
    console.log(`${explained.length} differences explained, ${unexplained.length} unexplained`);
    process.exitCode = unexplained.length + stale.length > 0 ? 1 : 0;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main();
