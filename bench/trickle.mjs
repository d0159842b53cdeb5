// How long a write needs to the target of a continuous replication, with many of them and few writes.
//
// From sending the write to the source until the target's own feed tells of it, so the write itself is in it.

import { get } from 'node:http';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

import { stopAll } from './children.mjs';
import { ask } from './data.mjs';
import { each, stage } from './stage.mjs';
import { number, part, table } from './table.mjs';

const JOBS = 100;
const WRITES = 600;
const WRITES_PER_S = 30;
const PATIENCE_S = 30;

export async function trickle(options) {
  const title = `${JOBS} continuous replications, ${WRITES_PER_S} writes a second among them; from write to arrival`;
  const { row } = table(title, ['writes', 'p50, ms', 'p99, ms', 'longest, ms', 'CPU ms a write, replicator', 'CPU ms a write, all']);
  for (const pairing of options.pairings?.split(',') ?? ['remote→remote', 'local→local']) {
    try {
      row(pairing, ...(await measure(pairing)));
    } finally {
      await stopAll();
    }
  }
}

async function measure(pairing) {
  const staged = await stage(pairing, (url) => each(JOBS, (n) => ask('PUT', `${url}/source-${n}`)));
  const arrivals = new Arrivals();
  await each(JOBS, async (n) => {
    await ask('PUT', `${staged.target.url}/target-${n}`);
    await staged.replicate(`source-${n}`, `target-${n}`, { continuous: true });
    await arrivals.follow(`${staged.target.url}/target-${n}`);
  });
  const write = async (job, id) => {
    const arrived = arrivals.of(id);
    await ask('PUT', `${staged.source.url}/source-${job}/${id}`, { job });
    return arrived;
  };
  await each(JOBS, (n) => write(n, `first-${n}`));
  const before = staged.servers.map((server) => server.cpuS());
  const writes = [];
  for (let n = 0; n < WRITES; n += 1) {
    // Neighbours in time are not neighbours in the list of jobs.
    writes.push(write((n * 37) % JOBS, `doc-${n}`));
    await sleep(1000 / WRITES_PER_S);
  }
  const times = await Promise.all(writes);
  const cpu = staged.servers.map((server, index) => ((server.cpuS() - before[index]) * 1000) / WRITES);
  arrivals.end();
  return [
    number(WRITES),
    ...[0.5, 0.99, 1].map((share) => number(part(times, share), 1)),
    number(cpu[0], 2),
    number(cpu.reduce((sum, one) => sum + one, 0), 2),
  ];
}

/** Documents that are waited for, and the feeds that tell of them. */
class Arrivals {
  #awaited = new Map();
  #feeds = [];

  /** The milliseconds from now until a feed tells of the document. */
  of(id) {
    const start = performance.now();
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${id} did not arrive`)), PATIENCE_S * 1000);
      this.#awaited.set(id, () => {
        clearTimeout(late);
        resolve(performance.now() - start);
      });
    });
  }

  /** Reads a database's feed until the end. */
  async follow(db) {
    const request = get(`${db}/_changes?feed=continuous&heartbeat=10000`, { agent: false });
    request.on('error', () => undefined);
    this.#feeds.push(request);
    const [answer] = await once(request, 'response');
    const lines = createInterface(answer);
    lines.on('line', (line) => line && this.#awaited.get(JSON.parse(line).id)?.());
    // What a feed misses, its document's own patience tells.
    lines.on('error', () => undefined);
  }

  end() {
    this.#feeds.forEach((feed) => feed.destroy());
  }
}
