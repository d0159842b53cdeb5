// Many jobs that each take a few documents, by a selector, out of one busy database: what they ask of its server.
//
// Every document is for one of them. Requests are counted by a relay before the source
// (`relay.mjs`); writes go past it.

import { setTimeout as sleep } from 'node:timers/promises';

import { startCouchrep, stopAll } from './children.mjs';
import { ask } from './data.mjs';
import { arrival, caughtUp, News, post, Sources, target } from './jobs.mjs';
import { counting } from './relay.mjs';
import { each } from './stage.mjs';
import { number, part, table } from './table.mjs';
import { Connection } from './wire.mjs';

const WRITES = 300;
const WRITES_PER_S = 10;
const SETTLING_S = 10;
const WATCHED_S = 30;
/** A prime, so that writes that follow one another are for jobs that are not neighbours. */
const STRIDE = 7919;

export async function filtered(options) {
  const title = `Jobs with a selector each on one database, ${WRITES_PER_S} writes a second to it`;
  const { row } = table(title, [
    'all started and caught up, s', 'requests to the source until then', 'its CPU s until then',
    'requests a write', "source's CPU ms a write", "replicator's CPU ms a write", 'write to arrival p50, ms', 'p99, ms',
    'idle: requests a second', "source's % of a core",
  ]);
  for (const jobs of options.filtered.split(',').map(Number)) {
    try {
      row(`${number(jobs)} jobs`, ...(await measure(options, jobs)));
    } finally {
      await stopAll();
    }
  }
}

async function measure(options, count) {
  const sources = await Sources.filled(options, 1, 0);
  const relay = await counting(sources.url);
  try {
    const docs = Array.from({ length: count }, (_, n) => ({ _id: `first-${n}`, job: n }));
    await ask('POST', `${sources.db(0)}/_bulk_docs`, { docs });
    const replicator = await startCouchrep();
    await each(count, (n) => ask('PUT', `${replicator.url}/${target(n)}`));
    return await measured({ sources, relay, replicator, count });
  } finally {
    relay.close();
    await sources.remove();
  }
}

async function measured({ sources, relay, replicator, count }) {
  const source = sources.db(0).replace(sources.url, relay.url);
  const used = () => ({ requests: relay.requests(), source: sources.cpuS(), replicator: replicator.cpuS(), at: performance.now() });
  const between = (one, other, per) => (field) => (other[field] - one[field]) / per;
  const news = await News.follow(replicator);

  const beginning = used();
  await post(replicator, count, (n) => ({ source, target: target(n), selector: { job: n } }));
  await caughtUp(replicator, news, count, () => 1);
  const begun = between(beginning, used(), 1);
  await sleep(SETTLING_S * 1000);

  const writing = used();
  const times = await written(sources, news, count);
  const write = between(writing, used(), WRITES);
  await sleep(SETTLING_S * 1000);

  const resting = used();
  await sleep(WATCHED_S * 1000);
  const second = between(resting, used(), WATCHED_S);
  news.end();
  return [
    number(begun('at') / 1000, 1), number(begun('requests')), number(begun('source'), 1),
    number(write('requests'), 1), number(write('source') * 1000, 1), number(write('replicator') * 1000, 1),
    number(part(times, 0.5), 1), number(part(times, 0.99), 1),
    number(second('requests'), 1), number(second('source') * 100, 2),
  ];
}

/** Writes a document a turn, each for another job; answers how long each took to its target. */
async function written(sources, news, count) {
  const arrivals = [];
  for (let n = 0; n < WRITES; n += 1) {
    const writer = await Connection.open(sources.url);
    const job = (n * STRIDE) % count;
    const arrived = arrival(news, writer, `${sources.db(0)}/later-${n}`, target(job), { job });
    arrivals.push(arrived.finally(() => writer.close()));
    await sleep(1000 / WRITES_PER_S);
  }
  return Promise.all(arrivals);
}
