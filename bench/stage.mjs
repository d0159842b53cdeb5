// The servers of one measurement. Every remote is a couchrep process of its own; `replicator` is the one that is asked.

import { startCouchrep } from './children.mjs';
import { ask } from './data.mjs';

export const PAIRINGS = ['local→local', 'remote→local', 'local→remote', 'remote→remote'];

/** Fills a source, which `fill` gets the URL of, and sets up the servers of a pairing around it, all of them fresh. */
export async function stage(pairing, fill) {
  const [from, to] = pairing.split('→');
  const filled = await startCouchrep();
  const bytes = await fill(filled.url);
  // The fill's memory and CPU are nobody's business.
  const source = await filled.restart();
  const replicator = from === 'local' ? source : await startCouchrep();
  const target = to === 'local' ? replicator : await startCouchrep();
  return new Stage(replicator, source, target, bytes);
}

class Stage {
  constructor(replicator, source, target, bytes) {
    Object.assign(this, { replicator, source, target, bytes });
  }

  get servers() {
    return [...new Set([this.replicator, this.source, this.target])];
  }

  /** Has the replicator copy the database `source` to the database `target`, which is made. */
  replicate(source, target, options = {}) {
    const named = (server, name) => (server === this.replicator ? name : `${server.url}/${name}`);
    const body = { source: named(this.source, source), target: named(this.target, target), create_target: true };
    return ask('POST', `${this.replicator.url}/_replicate`, { ...body, ...options });
  }

  /** Ends the replicator and starts it anew on the same data. */
  async restartReplicator() {
    const old = this.replicator;
    this.replicator = await old.restart();
    if (this.source === old) this.source = this.replicator;
    if (this.target === old) this.target = this.replicator;
  }
}

/** Does `work` for the numbers below `count`, some at once. */
export async function each(count, work, atOnce = 16) {
  let next = 0;
  const worker = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
