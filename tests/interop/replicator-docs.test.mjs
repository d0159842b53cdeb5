// couchrep and CouchDB 3.5, whose word on some fifty replicator documents is recorded, one by one.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { couchrep, observe, recorded } from './replicator-docs.mjs';
import { differences, tableOf } from './replicator-docs/compare.mjs';

test('replicator documents become what CouchDB makes of them, except where it is said why not', async () => {
  const server = await couchrep();
  const seen = await observe(server.url, { atOnce: 12, limits: { settled: 1500 } }).finally(server.stop);
  const { unexplained, unused } = differences(await recorded(), seen);
  assert.equal(unexplained.length, 0, `\n${tableOf(unexplained)}`);
  assert.deepEqual(unused, [], 'explains what does not differ');
});
