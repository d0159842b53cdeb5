// A server that is far away: a relay before it, through which every byte travels for a fixed time, each way.
//
// Nothing is slow but the way: as much may be on it as a fat pipe holds. A connection costs a round trip before its first
// byte, as TCP's handshake does. It runs in this process, which does nothing else meanwhile.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** Bytes on the way, each way of a connection: what a TCP window grows to on a good line. */
const WINDOW = 8 << 20;

const REQUEST_LINE_END = ' HTTP/1.1\r\n';

/** Puts `delayMs` each way before the server of `url`. Answers the URL to ask instead, and how to end it. */
export function farAway(url, delayMs) {
  return relay(url, (near, far) => {
    const reached = performance.now() + 2 * delayMs;
    carry(near, far, () => Math.max(performance.now(), reached) + delayMs);
    carry(far, near, () => performance.now() + delayMs);
  });
}

/** Counts the requests to the server of `url`: `requests()` of what is answered is how many there were. */
export async function counting(url) {
  let requests = 0;
  const counted = await relay(url, (near, far) => {
    let before = '';
    near.on('data', (chunk) => {
      const text = before + chunk.toString('latin1');
      requests += text.split(REQUEST_LINE_END).length - 1;
      before = text.slice(1 - REQUEST_LINE_END.length);
    });
    near.pipe(far);
    far.pipe(near);
  });
  return { ...counted, requests: () => requests };
}

async function relay(url, join) {
  const there = new URL(url);
  const sockets = new Set();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    const far = connect({ host: there.hostname, port: Number(there.port || 80), allowHalfOpen: true, noDelay: true });
    join(near, far);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      // Whatever befalls one side befalls the other.
      socket.on('error', () => [near, far].forEach((one) => one.destroy()));
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const here = new URL(url);
  here.host = `127.0.0.1:${server.address().port}`;
  const close = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { url: here.href.replace(/\/+$/, ''), close };
}

/** Carries one direction; `arrival` says when what sets out now arrives. */
function carry(from, to, arrival) {
  const way = [];
  let bytes = 0;
  let timer;
  const arrive = () => {
    timer = undefined;
    while (way.length > 0 && !to.writableNeedDrain && way[0].due <= performance.now()) {
      const { chunk } = way.shift();
      if (chunk === undefined) return void to.end();
      bytes -= chunk.length;
      to.write(chunk);
    }
    if (bytes < WINDOW) from.resume();
    if (way.length > 0 && !to.writableNeedDrain) timer ??= setTimeout(arrive, Math.max(0, way[0].due - performance.now()));
  };
  const depart = (chunk) => {
    way.push({ due: arrival(), chunk });
    bytes += chunk?.length ?? 0;
    if (bytes >= WINDOW) from.pause();
    if (!to.writableNeedDrain) timer ??= setTimeout(arrive, Math.max(0, way[0].due - performance.now()));
  };
  from.on('data', depart);
  from.on('end', () => depart(undefined));
  from.on('close', () => {
    if (from.readableEnded) return;
    clearTimeout(timer);
    to.destroy();
  });
  to.on('drain', arrive);
}
