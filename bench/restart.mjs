// How long it takes to find out that there is nothing to do: a replication that has caught up is asked for again, by
// the same process and by one that was just started.

import { stopAll } from './children.mjs';
import { fillSmall } from './data.mjs';
import { PAIRINGS, stage } from './stage.mjs';
import { number, table } from './table.mjs';

const TRIES = 20;

export async function restart(options) {
  const docs = Number(options.docs);
  const columns = ['again, ms (median)', 'slowest, ms', 'couchrep starts, ms', 'first time after its start, ms'];
  const { row } = table(`A caught-up one-shot of ${number(docs)} documents`, columns);
  for (const pairing of options.pairings?.split(',') ?? PAIRINGS.filter((pairing) => !pairing.startsWith('remote→l'))) {
    try {
      row(pairing, ...(await measure(pairing, docs)).map((ms) => number(ms, 1)));
    } finally {
      await stopAll();
    }
  }
}

async function measure(pairing, docs) {
  const staged = await stage(pairing, (url) => fillSmall(`${url}/source`, docs));
  await staged.replicate('source', 'target');
  const again = async () => {
    const [answer, ms] = await timed(() => staged.replicate('source', 'target'));
    if (!answer.no_changes) throw new Error(`there was something to do: ${JSON.stringify(answer)}`);
    return ms;
  };
  const times = [];
  for (let tries = 0; tries < TRIES; tries += 1) times.push(await again());
  times.sort((one, other) => one - other);
  const [, starting] = await timed(() => staged.restartReplicator());
  return [times[TRIES / 2], times.at(-1), starting, await again()];
}

async function timed(work) {
  const start = performance.now();
  return [await work(), performance.now() - start];
}
