// What jobs cost that have nothing to do, and what becomes of them when there is something: jobs that are documents,
// each with a source and a target of its own, up to ten thousand of them.
//
// Per number of jobs: until all have started and caught up; then, when their connections have had time to close, memory,
// CPU and sockets; how long a write takes to its target among all the idle ones; and after a kill, until all of them live
// again and have what was written meanwhile. With `--backlog N` each source has N documents first, and that is all that
// is measured.

import { setTimeout as sleep } from 'node:timers/promises';

import { startCouchrep, stopAll } from './children.mjs';
import { ask } from './data.mjs';
import { filtered } from './filtered.mjs';
import { arrival, caughtUp, listed, News, post, Sources, target } from './jobs.mjs';
import { each } from './stage.mjs';
import { number, part, table } from './table.mjs';
import { Connection } from './wire.mjs';

const WATCHED_S = 30;
/** From the last checkpoint until connections are closed that were needed for it. */
const SETTLING_S = 30;
const SAMPLES = 200;
/**
 * A CouchDB gathers what it tells of databases for up to half a second: whoever writes as soon as the last write has arrived
 * waits all of it each time. Others write at any moment.
 */
const ANY_MOMENT_MS = 2000;
/** A prime, so that samples that follow one another are not neighbours. */
const STRIDE = 7919;

export async function idle(options) {
  if (options.filtered) return filtered(options);
  const backlog = Number(options.backlog ?? 0);
  const from = options.local ? 'sources in the same store' : `sources in ${options.couchdb ? 'a CouchDB' : 'another couchrep'}`;
  const title = backlog ? `Jobs with ${number(backlog)} documents each to copy first, ${from}` : `Idle jobs, ${from}`;
  const { row } = table(title, backlog ? BACKLOG : IDLE);
  for (const jobs of options.jobs.split(',').map(Number)) {
    try {
      row(`${number(jobs)} jobs`, ...(await measure(options, jobs, backlog)));
    } finally {
      await stopAll();
    }
  }
}

const IDLE = [
  'all started and caught up, s', 'CPU s until then', 'KiB a job', '% of a core', 'source: % of a core', 'connections to it',
  'write to arrival p50, ms', 'p99, ms', 'longest, ms', 'after a kill: all listed, s', 'all caught up again, s',
];
const BACKLOG = ['all caught up, s', 'documents/s', 'CPU s', 'source: CPU s', 'memory, MiB', 'peak, MiB'];

async function measure(options, count, backlog) {
  const sources = await Sources.filled(options, count, backlog || 1);
  try {
    const bench = await Bench.start(options, sources, backlog || 1);
    const start = await bench.begin();
    if (backlog) return bench.copied(start, backlog);
    const rested = await bench.rest();
    return [number(start.seconds, 1), number(start.cpuS, 1), ...rested, ...(await bench.latency()), ...(await bench.killed())];
  } finally {
    await sources.remove();
  }
}

class Bench {
  static async start(options, sources, docs) {
    const { count } = sources;
    const replicator = options.local ? sources.server : await startCouchrep();
    await each(count, (n) => ask('PUT', `${replicator.url}/${target(n)}`));
    const bench = new Bench();
    Object.assign(bench, { count, sources, local: options.local, docs: new Array(count).fill(docs) });
    // What was made is not what is measured.
    bench.moved(await replicator.restart());
    return bench;
  }

  /** The replicator was started anew. */
  moved(replicator) {
    this.replicator = replicator;
    if (this.local) this.sources.moved(replicator);
  }

  async begin() {
    const { replicator, sources, count } = this;
    await ask('GET', replicator.url);
    this.before = replicator.residentKiB();
    const [cpuS, sourceCpuS, start] = [replicator.cpuS(), sources.cpuS(), performance.now()];
    const news = await News.follow(replicator);
    const source = (n) => (this.local ? `${sources.prefix}${n}` : sources.db(n));
    await post(replicator, count, (n) => ({ source: source(n), target: target(n) }));
    await caughtUp(replicator, news, count, (n) => this.docs[n]);
    news.end();
    const seconds = (performance.now() - start) / 1000;
    return { seconds, cpuS: replicator.cpuS() - cpuS, sourceCpuS: sources.cpuS() - sourceCpuS };
  }

  copied({ seconds, cpuS, sourceCpuS }, backlog) {
    const { count, replicator, local } = this;
    return [
      number(seconds, 1), number((count * backlog) / seconds), number(cpuS, 1), local ? '–' : number(sourceCpuS, 1),
      number(replicator.residentKiB() / 1024), number(replicator.peakMiB()),
    ];
  }

  /** Memory, CPU and sockets when nothing happens. */
  async rest() {
    const { replicator, sources, count } = this;
    await sleep(SETTLING_S * 1000);
    const before = [replicator.cpuS(), sources.cpuS()];
    await sleep(WATCHED_S * 1000);
    const percent = [replicator.cpuS(), sources.cpuS()].map((now, n) => number(((now - before[n]) / WATCHED_S) * 100, 2));
    const kib = (replicator.residentKiB() - this.before) / count;
    return [number(kib, 1), percent[0], this.local ? '–' : percent[1], number(replicator.outgoing())];
  }

  async latency() {
    const { replicator, sources, count } = this;
    const [news, writer] = [await News.follow(replicator), await Connection.open(sources.url)];
    const times = [];
    for (let sample = 0; sample < Math.min(SAMPLES, count); sample += 1) {
      const n = (sample * STRIDE) % count;
      if (!sources.server) await sleep(Math.random() * ANY_MOMENT_MS);
      times.push(await arrival(news, writer, `${sources.db(n)}/sample`, target(n)));
      this.docs[n] += 1;
    }
    writer.close();
    news.end();
    return [0.5, 0.99, 1].map((share) => number(part(times, share), 1));
  }

  /** Every source is written to while the replicator doesn't live; those in the same store when it lives again. */
  async killed() {
    const { sources, count } = this;
    const write = () => each(count, (n) => ask('PUT', `${sources.db(n)}/meanwhile`, {}));
    await this.replicator.kill();
    if (!this.local) await write();
    const start = performance.now();
    const since = () => number((performance.now() - start) / 1000, 1);
    this.moved(await startCouchrep(this.replicator.dir));
    const news = await News.follow(this.replicator);
    const listing = listed(this.replicator, count).then(since);
    if (this.local) await write();
    await caughtUp(this.replicator, news, count, (n) => this.docs[n] + 1);
    news.end();
    return [await listing, since()];
  }
}
