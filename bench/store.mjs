// What the embedded store does a second as a database: written and read over HTTP, in turns with a CouchDB (the first URL of
// `--couchdb`) and with another build of couchrep (`--beside PATH`).
//
// Everything is done twice: in databases without a `validate_doc_update`, and in databases with one that lets every document
// through. Each turn lasts about a second, and who goes first changes from round to round, so that a busy machine treats all
// alike. A ratio is the median of the rounds' ratios. The CPU of a document is the server's alone.

import { randomUUID } from 'node:crypto';

import { familyCpuS, listener, startCouchrep, stopAll } from './children.mjs';
import { configure } from './couchdb.mjs';
import { ask, smallDoc } from './data.mjs';
import { median, number, table } from './table.mjs';
import { Connection, request } from './wire.mjs';

const TURN_MS = 1000;
/** What reads read. */
const DOCS = 20_000;
const DOCS_PER_BATCH = 500;
/** A request's place for a document's number, in decimal digits. */
const MARK = 'NNNNNNNN';
const ID = `doc-${MARK}`;
/** Documents are read in an order that isn't theirs. */
const STRIDE = 7919;
/** As CouchDB's clients do, everybody asks with credentials. */
const ADMIN = 'bench:bench';

const VALIDATE = `function (newDoc, oldDoc, userCtx) {
  if (userCtx.roles.indexOf('_admin') === -1 && userCtx.roles.indexOf('cook') === -1) {
    throw({ unauthorized: 'only cooks write here' });
  }
  if (newDoc._deleted) return;
  if (typeof newDoc.type !== 'string') throw({ forbidden: 'a document needs a type' });
  if (oldDoc && oldDoc.type !== newDoc.type) throw({ forbidden: 'a type is for ever' });
}`;

/** What is read to its end, by one reader. */
const READ_WHOLE = ['_changes', '_changes?include_docs=true', '_all_docs', '_all_docs?include_docs=true'];

/** The body of the documents, all but their ids; about 1 KB. */
const { _id, ...BODY } = smallDoc(1);
const BATCH = JSON.stringify({ docs: Array(DOCS_PER_BATCH).fill({ _id: ID, ...BODY }) });

/**
 * What is measured: how many do it at once, what one request asks for, and how many documents that is about. `requests` answers
 * the bytes of the `n`th request of a connection.
 */
const OPERATIONS = {
  PUT: {
    atOnce: 16,
    status: 201,
    docs: 1,
    requests: (db) => numbered(request('PUT', `${db}/${ID}`, JSON.stringify(BODY))),
  },
  GET: {
    atOnce: 16,
    status: 200,
    docs: 1,
    requests: (db, filled) => {
      const get = numbered(request('GET', `${db}/${ID}`));
      return (n) => get((n * STRIDE) % filled);
    },
  },
  _bulk_docs: { atOnce: 4, status: 201, docs: DOCS_PER_BATCH, requests: batches },
  ...Object.fromEntries(READ_WHOLE.map((path) => [path, { atOnce: 1, status: 200, requests: (db) => whole(`${db}/${path}`) }])),
};

function batches(db) {
  const post = numbered(request('POST', `${db}/_bulk_docs`, BATCH));
  return (n) => post(n * DOCS_PER_BATCH);
}

function whole(url) {
  const get = request('GET', url);
  return () => get;
}

/** Puts numbers in place of the marks, from one on; the bytes are the same ones each time. */
function numbered(bytes) {
  const marks = [];
  for (let at = bytes.indexOf(MARK); at >= 0; at = bytes.indexOf(MARK, at + MARK.length)) marks.push(at);
  return (first) => {
    marks.forEach((at, index) => bytes.latin1Write(String(first + index).padStart(MARK.length, '0'), at));
    return bytes;
  };
}

export async function store({ couchdb, beside, runs, scale }) {
  const rounds = Number(runs ?? 3);
  const docs = Math.ceil((DOCS * Number(scale)) / DOCS_PER_BATCH) * DOCS_PER_BATCH;
  const [url] = couchdb?.split(',').map((one) => one.replace(/\/+$/, '')) ?? [];
  const restore = url && (await configure(url));
  const subjects = [];
  try {
    subjects.push(await couchrep('couchrep'));
    if (url) subjects.push({ name: 'CouchDB', url, pid: listener(url), databases: {} });
    if (beside) subjects.push(await couchrep('the other build', beside));
    for (const subject of subjects) await fill(subject, docs);
    const title = `Documents a second, of about 1 KB each, ${number(docs)} of them in the databases that are read; medians of ${rounds}`;
    const { row } = table(title, columns(subjects));
    const results = await measure(subjects, docs, rounds);
    for (const [what, runs] of results) row(what, ...cells(subjects, runs));
  } finally {
    for (const subject of subjects) await Promise.all(Object.values(subject.databases).map((db) => ask('DELETE', db)));
    await stopAll();
    await restore?.();
  }
}

async function couchrep(name, binary) {
  const server = await startCouchrep(undefined, { binary, admin: ADMIN });
  return { name, url: server.url.replace('://', `://${ADMIN}@`), pid: server.child.pid, databases: {} };
}

/** Makes the databases that are read, and looks once whether all is in them: fast is easy if documents may be missing. */
async function fill(subject, docs) {
  for (const validated of [false, true]) {
    const db = await make(subject, validated);
    subject.databases[validated] = db;
    const connection = await Connection.open(db);
    const batch = batches(db);
    for (let n = 0; n < docs / DOCS_PER_BATCH; n += 1) await connection.send(batch(n), 201);
    connection.close();
    for (const path of READ_WHOLE) {
      const { rows, results } = await ask('GET', `${db}/${path}`);
      const found = (rows ?? results).length;
      if (found !== docs + Number(validated)) throw new Error(`${subject.name}: ${found} rows of ${path} instead of ${docs}`);
    }
  }
}

async function make({ url }, validated) {
  const db = `${url}/couchrep-bench-${randomUUID()}`;
  await ask('PUT', db);
  if (validated) await ask('PUT', `${db}/_design/bench`, { validate_doc_update: VALIDATE });
  return db;
}

/** All turns; answers each operation's runs by the subjects' names. */
async function measure(subjects, docs, rounds) {
  const results = new Map();
  for (let round = 0; round < rounds; round += 1) {
    const order = round % 2 === 0 ? subjects : subjects.toReversed();
    for (const validated of [false, true]) {
      for (const [name, operation] of Object.entries(OPERATIONS)) {
        const what = validated ? `${name}, validated` : name;
        if (round === 0) results.set(what, Object.fromEntries(subjects.map((subject) => [subject.name, []])));
        for (const subject of order) results.get(what)[subject.name].push(await turn(subject, operation, validated, docs));
      }
    }
  }
  return results;
}

/** One operation over and over; what writes has a new database. */
async function turn(subject, { atOnce, status, docs, requests }, validated, filled) {
  const writes = status === 201;
  const db = writes ? await make(subject, validated) : subject.databases[validated];
  const connections = await Promise.all(Array.from({ length: atOnce }, () => Connection.open(db)));
  try {
    // Each connection's bytes are its own: they change while others are on their way.
    const workers = connections.map((connection) => [connection, requests(db, filled)]);
    let sent = 0;
    const used = () => (subject.pid ? familyCpuS(subject.pid) : NaN);
    const before = used();
    const start = performance.now();
    const work = async ([connection, bytes]) => {
      while (performance.now() - start < TURN_MS) await connection.send(bytes(sent++), status);
    };
    await Promise.all(workers.map(work));
    const seconds = (performance.now() - start) / 1000;
    const done = sent * (docs ?? filled);
    return { perSecond: done / seconds, cpuUs: ((used() - before) / done) * 1e6 };
  } finally {
    connections.forEach((connection) => connection.close());
    if (writes) await ask('DELETE', db);
  }
}

function columns([own, ...others]) {
  const names = [own, ...others].map(({ name }) => name);
  return [
    ...names.map((name) => `${name}, a second`),
    ...others.map(({ name }) => `as fast as ${name}, times`),
    ...names.map((name) => `CPU µs, ${name}`),
    ...others.map(({ name }) => `CPU, ${name} to couchrep`),
  ];
}

function cells([own, ...others], runs) {
  const names = [own, ...others].map(({ name }) => name);
  const of = (name, field) => runs[name].map((run) => run[field]);
  const shown = (value, digits) => (Number.isNaN(value) ? '–' : number(value, digits));
  const ratio = (one, other) => shown(median(one.map((value, round) => value / other[round])), 2);
  return [
    ...names.map((name) => shown(median(of(name, 'perSecond')))),
    ...others.map(({ name }) => ratio(of(own.name, 'perSecond'), of(name, 'perSecond'))),
    ...names.map((name) => shown(median(of(name, 'cpuUs')), 1)),
    ...others.map(({ name }) => ratio(of(name, 'cpuUs'), of(own.name, 'cpuUs'))),
  ];
}
