// What is replicated: made up on the way, never held whole in memory, the same at every run.

import { createHash } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const MIB = 1 << 20;
const DOCS_PER_REQUEST = 1000;
const ATTACHED_PER_REQUEST = 100;

/** Sends JSON; anything but success is an error. The URL may hold credentials. */
export async function ask(method, url, body, headers = {}) {
  const { username, password } = new URL(url);
  const credentials = Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64');
  const answer = await fetch(url.replace(/^(https?:\/\/)[^/@]*@/, '$1'), {
    method,
    headers: { 'Content-Type': 'application/json', ...(username && { Authorization: `Basic ${credentials}` }), ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${url}: ${answer.status} ${text.slice(0, 500)}`);
  return JSON.parse(text);
}

/** Sends a body that is longer than memory should hold; fetch would need HTTP/2 or a copy for that. */
export async function send(method, url, headers, chunks) {
  await new Promise((resolve, reject) => {
    const request = httpRequest(url, { method, headers }, (answer) => {
      answer.resume();
      answer.on('end', () => {
        if (answer.statusCode < 300) resolve();
        else reject(new Error(`${method} ${url}: ${answer.statusCode}`));
      });
      answer.on('error', reject);
    });
    request.on('error', reject);
    pipeline(Readable.from(chunks), request).catch(reject);
  });
}

// xorshift: cheap, repeatable, and incompressible enough that nothing is gained by compression.
export function* noise(bytes, seed) {
  const block = new Uint32Array(MIB / 4);
  let x = seed | 1;
  for (let left = bytes; left > 0; left -= MIB) {
    for (let i = 0; i < block.length; i += 1) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      block[i] = x;
    }
    // A copy: the socket may still hold the last one.
    yield Buffer.from(new Uint8Array(block.buffer, 0, Math.min(left, MIB)));
  }
}

/** A document of about 1 KB, of `textBytes` and 200 bytes more. */
export function smallDoc(n, textBytes = 800) {
  return {
    _id: `doc-${String(n).padStart(8, '0')}`,
    type: 'recipe',
    n,
    price: n / 7,
    tags: ['soup', 'vegan', `tag-${n % 97}`],
    author: { name: `Author ${n % 1009}`, mail: `author${n % 1009}@example.org` },
    text: `${n} `.repeat(textBytes).slice(0, textBytes),
  };
}

/** A made-up history of `length` revisions, as `_bulk_docs` takes it with `new_edits: false`. */
function history(n, length) {
  const ids = Array.from({ length }, (_, rev) => `${n}-${rev}`).map((text) => createHash('md5').update(text).digest('hex'));
  return { _rev: `${length}-${ids[0]}`, _revisions: { start: length, ids } };
}

/** Writes `count` documents of about 1 KB, of one revision or of several; answers their bytes as JSON. */
export async function fillSmall(db, count, { textBytes, revisions = 1 } = {}) {
  await ask('PUT', db);
  let bytes = 0;
  for (let first = 0; first < count; first += DOCS_PER_REQUEST) {
    const docs = [];
    for (let n = first; n < Math.min(count, first + DOCS_PER_REQUEST); n += 1) {
      docs.push({ ...smallDoc(n, textBytes), ...(revisions > 1 && history(n, revisions)) });
      bytes += JSON.stringify(docs.at(-1)).length;
    }
    await ask('POST', `${db}/_bulk_docs`, { docs, new_edits: revisions === 1 });
  }
  return bytes;
}

/** Writes `count` documents with a text of `size` bytes each. */
export async function fillLarge(db, count, size) {
  await ask('PUT', db);
  for (let n = 0; n < count; n += 1) {
    await ask('PUT', `${db}/large-${n}`, { n, text: `${n} large `.repeat(size / 8).slice(0, size) });
  }
  return count * size;
}

/** Writes `count` documents with an attachment of `size` bytes each, of a type that isn't compressed. */
export async function fillAttached(db, count, size) {
  await ask('PUT', db);
  for (let first = 0; first < count; first += ATTACHED_PER_REQUEST) {
    const docs = [];
    for (let n = first; n < Math.min(count, first + ATTACHED_PER_REQUEST); n += 1) {
      const [data] = noise(size, n + 1);
      const photo = { content_type: 'image/jpeg', data: data.toString('base64') };
      docs.push({ ...smallDoc(n), _attachments: { 'photo.jpg': photo } });
    }
    await ask('POST', `${db}/_bulk_docs`, { docs });
  }
  return count * size;
}

/** Writes one document with one attachment of `size` bytes, streamed. */
export async function fillAttachment(db, size) {
  await ask('PUT', db);
  const headers = { 'Content-Type': 'application/octet-stream', 'Content-Length': size };
  await send('PUT', `${db}/attached/big.bin`, headers, noise(size, 42));
  return size;
}
