// What it costs to look at every document: filters that let a tenth of them through, and `couchrep verify`.

import { runCouchrep, stopAll } from './children.mjs';
import { ask, fillSmall } from './data.mjs';
import { stage } from './stage.mjs';
import { number, table } from './table.mjs';

const WAYS = {
  'JavaScript filter': { filter: 'bench/tenth' },
  selector: { selector: { n: { $mod: [10, 0] } } },
};
const DESIGN = { filters: { tenth: 'function (doc, req) { return doc.n % 10 === 0; }' } };

/** Replicates a tenth of the documents. */
export async function filters(options) {
  const docs = Number(options.docs);
  const { row } = table(`${number(docs)} documents, of which a filter lets a tenth through`, ['s', 'documents/s looked at', 'written']);
  for (const pairing of options.pairings?.split(',') ?? ['local→local', 'remote→local']) {
    const staged = await stage(pairing, async (url) => {
      await fillSmall(`${url}/source`, docs);
      await ask('PUT', `${url}/source/_design/bench`, DESIGN);
    });
    try {
      for (const [name, chosen] of Object.entries(WAYS)) {
        const start = performance.now();
        const answer = await staged.replicate('source', `target-${name[0].toLowerCase()}`, chosen);
        const seconds = (performance.now() - start) / 1000;
        const written = answer.history[0].docs_written;
        if (written !== Math.ceil(docs / 10)) throw new Error(`${name}: ${JSON.stringify(answer)}`);
        row(`${name}, ${pairing}`, number(seconds, 2), number(docs / seconds), number(written));
      }
    } finally {
      await stopAll();
    }
  }
}

/** Proves two databases equal. */
export async function verify(options) {
  const docs = Number(options.docs);
  const { row } = table(`couchrep verify of ${number(docs)} documents`, ['s', 'documents/s']);
  const staged = await stage('remote→remote', (url) => fillSmall(`${url}/source`, docs));
  try {
    await staged.replicate('source', 'target');
    const urls = [`${staged.source.url}/source`, `${staged.target.url}/target`];
    for (const [name, more] of [['one way', []], ['both ways', ['--both']]]) {
      const start = performance.now();
      await runCouchrep('verify', ...urls, '--json', ...more);
      const seconds = (performance.now() - start) / 1000;
      row(name, number(seconds, 2), number(docs / seconds));
    }
  } finally {
    await stopAll();
  }
}
