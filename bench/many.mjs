// Many databases in one process, and a client that waits at each of them: memory, CPU, and how fast a start and a write are.
//
// Every database has the same hundred small documents. Then the server is started anew, so that memory and CPU are those of
// what is measured. In the seconds in which nothing happens each waiting client gets one heartbeat, unless `--heartbeat` says
// otherwise.

import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { startCouchrep, stopAll } from './children.mjs';
import { ask } from './data.mjs';
import { each } from './stage.mjs';
import { median, number, table } from './table.mjs';
import { Connection, request } from './wire.mjs';

const DOCS = 100;
const FILLING_AT_ONCE = 8;
const OPENING_AT_ONCE = 100;
const WATCHED_S = 30;
/** Databases that are written to while all of them are waited at. */
const WRITES = 20;
/** CPU seconds a second, below which a server has settled. */
const QUIET = 0.02;

export async function many(options) {
  const count = Number(options.databases);
  const { row } = table(`${number(count)} databases of ${DOCS} documents in one process`, ['']);
  const server = await filled(count, row);
  try {
    const polls = await waiting(server, count, Number(options.heartbeat), row);
    try {
      await measureWaiting(server, polls, row);
    } finally {
      polls.forEach(({ connection }) => connection.close());
    }
  } finally {
    await stopAll();
  }
}

/** Makes the databases, starts the server anew, and reads something of each. */
async function filled(count, row) {
  const first = await startCouchrep();
  const docs = Array.from({ length: DOCS }, (_, n) => ({ _id: `doc-${n}`, n, text: 'x'.repeat(100) }));
  const fillingS = await timedEach(first, count, FILLING_AT_ONCE, async (connection, n) => {
    await connection.send(request('PUT', `${first.url}/db-${n}`), 201);
    await connection.send(request('POST', `${first.url}/db-${n}/_bulk_docs`, JSON.stringify({ docs })), 201);
  });
  row('to make and fill them, s', number(fillingS, 1));
  row('peak until then, MiB', number(first.peakMiB()));
  row('on disk, MiB', number(bytesOnDisk(first.dir) / 2 ** 20));

  await first.end();
  const start = performance.now();
  const server = await startCouchrep(first.dir);
  await ask('GET', server.url);
  row('from a start to the first answer, s', number((performance.now() - start) / 1000, 2));
  row('memory then, MiB', number(server.residentKiB() / 1024));

  const readingS = await timedEach(server, count, 1, (connection, n) =>
    connection.send(request('GET', `${server.url}/db-${n}/doc-${DOCS / 2}`), 200),
  );
  row('to read a document of each, one after the other, s', number(readingS, 1));
  row('peak until then, MiB', number(server.peakMiB()));
  return server;
}

/** A client at each database that waits for its next change. */
async function waiting(server, count, heartbeatMs, row) {
  const polls = [];
  const start = performance.now();
  await each(count, async (n) => {
    const connection = await Connection.open(server.url);
    const query = `feed=longpoll&since=now&timeout=${3 * heartbeatMs}&heartbeat=${heartbeatMs}`;
    const poll = { connection, db: `${server.url}/db-${n}`, over: undefined };
    // Whoever comes when more than `--max-requests` are still being read for is refused: the next one waits for this one's head.
    await new Promise((begun, refused) => {
      poll.answered = connection.send(request('GET', `${poll.db}/_changes?${query}`), 200, begun);
      poll.answered.catch(refused);
    });
    poll.answered.then((bytes) => (poll.over = `${bytes} bytes`), (error) => (poll.over = error.message));
    polls.push(poll);
  }, OPENING_AT_ONCE);
  await quiet(server);
  row('until a client waits at each of them, s', number((performance.now() - start) / 1000, 1));
  return polls;
}

async function measureWaiting(server, polls, row) {
  const { sockets } = server.openFiles();
  if (sockets < polls.length) throw new Error(`only ${sockets} sockets are open: is the limit of open files too low?`);
  const before = server.cpuS();
  await sleep(WATCHED_S * 1000);
  row(`CPU s in ${WATCHED_S} s in which nothing happens`, number(server.cpuS() - before, 2));
  const over = polls.filter((poll) => poll.over);
  if (over.length > 0) throw new Error(`before anything had changed, ${over.length} waited no longer: ${over[0].db}: ${over[0].over}`);
  row('memory with all of them, MiB', number(server.residentKiB() / 1024));
  row('peak, MiB', number(server.peakMiB()));

  const writer = await Connection.open(server.url);
  const times = [];
  for (let n = 0; n < WRITES; n += 1) {
    const { db, answered } = polls[Math.floor((n * polls.length) / WRITES)];
    const start = performance.now();
    await Promise.all([answered, writer.send(request('PUT', `${db}/new`, '{}'), 201)]);
    times.push(performance.now() - start);
  }
  writer.close();
  row('from a write to the answer of whom it wakes, ms (median, slowest)', `${number(median(times), 1)}, ${number(Math.max(...times), 1)}`);
}

/** Does `work` for the numbers below `count` over some kept connections; answers the seconds. */
async function timedEach(server, count, atOnce, work) {
  const connections = await Promise.all(Array.from({ length: atOnce }, () => Connection.open(server.url)));
  const start = performance.now();
  await each(count, async (n) => {
    const connection = connections.pop();
    await work(connection, n);
    connections.push(connection);
  }, atOnce);
  connections.forEach((connection) => connection.close());
  return (performance.now() - start) / 1000;
}

/** Waits until a server does nothing. */
async function quiet(server) {
  for (let before = server.cpuS(), used = 1; used > QUIET; before += used) {
    await sleep(1000);
    used = server.cpuS() - before;
  }
}

function bytesOnDisk(dir) {
  return readdirSync(dir, { recursive: true }).reduce((sum, name) => sum + lstatSync(join(dir, name)).blocks * 512, 0);
}
