// What continuous replications cost that have nothing to do: memory, CPU, sockets.
//
// Each job has a source and a target of its own with one document. Measured when all jobs have recorded their
// checkpoints and connections that nobody needs any more have had time to close.

import { setTimeout as sleep } from 'node:timers/promises';

import { stopAll } from './children.mjs';
import { ask } from './data.mjs';
import { each, stage } from './stage.mjs';
import { number, table } from './table.mjs';

/** A heartbeat of each feed. */
const WATCHED_S = 10;
const PATIENCE_S = 120;
/** From the last checkpoint until connections are closed that were needed for it. */
const SETTLING_S = 20;

export async function idle(options) {
  const jobs = Number(options.jobs);
  const { row } = table(`${number(jobs)} idle continuous replications`, [
    'KiB a job', 'CPU ms/s', 'sockets', 'open files',
    'source server: KiB a feed', 'CPU ms/s', 'to start all, s', 'CPU s to start all, replicator',
  ]);
  for (const pairing of options.pairings?.split(',') ?? ['remote→remote', 'local→remote']) {
    try {
      row(pairing, ...(await measure(pairing, jobs)));
    } finally {
      await stopAll();
    }
  }
}

async function measure(pairing, jobs) {
  const staged = await stage(pairing, (url) =>
    each(jobs, async (n) => {
      await ask('PUT', `${url}/source-${n}`);
      await ask('PUT', `${url}/source-${n}/doc`, { n });
    }),
  );
  const { replicator, source, target } = staged;
  await each(jobs, (n) => ask('PUT', `${target.url}/target-${n}`));
  // A first answer makes what every server has once.
  await Promise.all(staged.servers.map((server) => ask('GET', server.url)));
  const before = { replicator: replicator.residentKiB(), source: source.residentKiB(), cpu: replicator.cpuS() };
  const start = performance.now();
  await each(jobs, (n) => staged.replicate(`source-${n}`, `target-${n}`, { continuous: true }));
  await settled(replicator, jobs);
  const seconds = (performance.now() - start) / 1000;
  const cpuStart = replicator.cpuS() - before.cpu;
  await sleep(SETTLING_S * 1000);
  const cpu = { replicator: replicator.cpuS(), source: source.cpuS() };
  await sleep(WATCHED_S * 1000);
  const perSecond = (server, earlier) => number(((server.cpuS() - earlier) / WATCHED_S) * 1000);
  const { files, sockets } = replicator.openFiles();
  const remote = source !== replicator;
  return [
    number((replicator.residentKiB() - before.replicator) / jobs, 1),
    perSecond(replicator, cpu.replicator),
    number(sockets),
    number(files),
    remote ? number((source.residentKiB() - before.source) / jobs, 1) : '–',
    remote ? perSecond(source, cpu.source) : '–',
    number(seconds, 1),
    number(cpuStart, 1),
  ];
}

/** Waits until every job has recorded what it copied. */
async function settled(replicator, jobs) {
  for (let tries = 0; tries < PATIENCE_S; tries += 1) {
    const tasks = await ask('GET', `${replicator.url}/_active_tasks`);
    const recorded = tasks.filter((task) => task.docs_written === 1 && task.checkpointed_source_seq === task.source_seq);
    if (recorded.length === jobs) return;
    await sleep(1000);
  }
  throw new Error(`the jobs didn't catch up in ${PATIENCE_S} s`);
}
