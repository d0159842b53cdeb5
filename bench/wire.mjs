// HTTP/1.1 over kept connections, as cheap as Node can do it: the machine that is measured is the one that asks, too.
//
// A request is a buffer that was made before the clock runs, and of an answer only its status and its end are looked for.

import { connect } from 'node:net';

const HEAD_END = Buffer.from('\r\n\r\n');
const LINE_END = Buffer.from('\r\n');

/** The bytes of a request. The URL may hold credentials. */
export function request(method, url, body) {
  const { host, username, password, pathname, search } = new URL(url);
  const credentials = Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64');
  const head = [
    `${method} ${pathname}${search} HTTP/1.1`,
    `Host: ${host}`,
    ...(username ? [`Authorization: Basic ${credentials}`] : []),
    ...(body === undefined ? [] : ['Content-Type: application/json', `Content-Length: ${Buffer.byteLength(body)}`]),
  ];
  return Buffer.from(`${head.join('\r\n')}\r\n\r\n${body ?? ''}`);
}

/** A kept connection, for one request after the other. */
export class Connection {
  #socket;
  #answer;
  #settle;
  #begun;

  /** Connects to the server of a URL. */
  static open(url) {
    const { hostname, port } = new URL(url);
    return new Promise((resolve, reject) => {
      const socket = connect({ host: hostname, port: Number(port || 80), noDelay: true });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new Connection(socket));
      });
    });
  }

  constructor(socket) {
    this.#socket = socket;
    const broken = (error) => this.#settle?.reject(error ?? new Error('the server closed the connection'));
    socket.on('data', (chunk) => {
      const over = this.#answer?.take(chunk);
      if (this.#answer?.status === 200) this.#begun?.();
      if (over) this.#settle.resolve();
    });
    socket.on('error', broken);
    socket.on('close', () => broken());
  }

  /**
   * Sends a request and waits for the end of its answer; answers the bytes of its body. Another status is an error. `begun` is
   * called, perhaps more than once, when an answer of 200 has begun.
   */
  async send(bytes, status, begun) {
    this.#answer = new Answer();
    this.#begun = begun;
    const ended = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.#socket.write(bytes);
    await ended;
    this.#settle = undefined;
    if (this.#answer.status !== status) {
      throw new Error(`${bytes.subarray(0, bytes.indexOf(LINE_END))}: ${this.#answer.status} ${this.#answer.start}`);
    }
    return this.#answer.bytes;
  }

  close() {
    this.#settle = undefined;
    this.#socket.destroy();
  }
}

/** An answer on its way: of its length, or in chunks. */
class Answer {
  status;
  /** Of its body, so far. */
  bytes = 0;
  /** The beginning of its body, for who has to tell what went wrong. */
  start = '';
  /** What has come of a head or of a chunk's size, if it isn't whole. */
  #rest;
  /** Bytes that are still to come, of the body or of the chunk and the line end after it. */
  #left = 0;
  #chunked = false;
  #last = false;

  /** Takes what came; `true` if that is all. */
  take(chunk) {
    const data = this.#rest ? Buffer.concat([this.#rest, chunk]) : chunk;
    this.#rest = undefined;
    let at = 0;
    if (this.status === undefined) {
      const end = data.indexOf(HEAD_END);
      if (end < 0) return this.#wait(data);
      this.#head(data.latin1Slice(0, end + 2));
      at = end + 4;
    }
    if (this.start.length < 200) this.start += data.utf8Slice(at, Math.min(data.length, at + 200));
    for (;;) {
      const taken = Math.min(this.#left, data.length - at);
      at += taken;
      this.#left -= taken;
      if (!this.#chunked) this.bytes += taken;
      if (this.#left > 0) return false;
      if (!this.#chunked || this.#last) return true;
      const end = data.indexOf(LINE_END, at);
      if (end < 0) return this.#wait(data.subarray(at));
      const size = Number.parseInt(data.latin1Slice(at, end), 16);
      at = end + 2;
      this.bytes += size;
      this.#left = size + LINE_END.length;
      this.#last = size === 0;
    }
  }

  #wait(rest) {
    this.#rest = rest;
    return false;
  }

  #head(text) {
    this.status = Number(text.slice(9, 12));
    this.#chunked = /\r\ntransfer-encoding: *chunked\r\n/i.test(text);
    if (!this.#chunked) this.#left = Number(/\r\ncontent-length: *(\d+)\r\n/i.exec(text)[1]);
  }
}
