// The servers under measurement: started, watched through /proc, ended. Only children of this process are started and ended; a
// CouchDB that is measured beside them is only looked at.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const ownBinary = process.env.COUCHREP_BIN ?? join(root, 'target/release/couchrep');
const pouchdbServer = join(root, 'tests/interop/node_modules/pouchdb-server/bin/pouchdb-server');

// Linux counts CPU time in hundredths of a second, whatever the kernel's own clock.
const TICKS_PER_S = 100;

const newDir = () => mkdtempSync(join(process.env.BENCH_DIR ?? tmpdir(), 'couchrep-bench-'));

/** Every child that hasn't been stopped. */
const running = new Set();

/** A server: its URL, and what it has used so far. */
class Server {
  constructor(child, url, dir) {
    Object.assign(this, { child, url, dir });
    running.add(this);
  }

  /** CPU seconds, user and system, of all its threads, and of processes that it started. */
  cpuS() {
    return familyCpuS(this.child.pid);
  }

  /** Peak resident memory in MiB since the start. */
  peakMiB() {
    return this.#statusKiB('VmHWM') / 1024;
  }

  /** Resident memory in KiB. */
  residentKiB() {
    return this.#statusKiB('VmRSS');
  }

  /** Open files, and how many of them are sockets. */
  openFiles() {
    const dir = `/proc/${this.child.pid}/fd`;
    const kinds = readdirSync(dir).map((fd) => readlinkSync(join(dir, fd)));
    return { files: kinds.length, sockets: kinds.filter((kind) => kind.startsWith('socket:')).length };
  }

  /** Connections that it opened: those to its own port were opened by others. */
  outgoing() {
    const dir = `/proc/${this.child.pid}/fd`;
    const own = new Set(readdirSync(dir).map((fd) => readlinkSync(join(dir, fd))));
    const port = portInHex(this.url);
    const ESTABLISHED = '01';
    return connections().filter(
      ({ at, state, inode }) => own.has(`socket:[${inode}]`) && state === ESTABLISHED && !at.endsWith(`:${port}`),
    ).length;
  }

  #statusKiB(field) {
    return family(this.child.pid).reduce((sum, pid) => {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      return sum + Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)[1]);
    }, 0);
  }

  /** Ends it and removes its data. */
  async stop() {
    running.delete(this);
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const ended = once(this.child, 'exit');
      this.child.kill('SIGTERM');
      await ended;
    }
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Ends it and keeps its data. */
  async end(signal = 'SIGTERM') {
    running.delete(this);
    const ended = once(this.child, 'exit');
    this.child.kill(signal);
    await ended;
  }

  /** The same, in the middle of whatever it does. */
  kill() {
    return this.end('SIGKILL');
  }

  /** Ends it and starts it anew on the same data: memory and CPU count from nothing. */
  async restart() {
    await this.end();
    return startCouchrep(this.dir);
  }
}

/** A process's CPU seconds so far, user and system, of all its threads. */
export function cpuS(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name in parentheses may hold spaces: fields 14 and 15 are counted from behind it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S;
}

/** The same, of a process and of those that it started: CouchDB has its JavaScript run by others. */
export function familyCpuS(pid) {
  return family(pid).reduce((sum, one) => sum + cpuS(one), 0);
}

/** A process and those that it started. */
function family(pid) {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean),
  );
  return [pid, ...children.flatMap(family)];
}

/**
 * Starts couchrep on a free port, this build of it or another `binary`; without an `admin`, `name:password`, everyone is one.
 * `beside` is the CouchDB beside which it is to stand.
 */
export async function startCouchrep(dir = newDir(), { binary = ownBinary, admin, beside } = {}) {
  // The port changes, ids stay: a replication of local names is known again after a restart.
  const args = ['serve', '--listen', '127.0.0.1:0', '--local-address', '127.0.0.1:5984', '--data-dir', dir];
  const child = spawn(binary, [...args, '--log', 'error'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      ...process.env,
      COUCHREP_LOG: 'warn',
      ...(admin && { COUCHREP_ADMIN: admin }),
      ...(beside && { COUCHREP_COUCHDB: beside }),
    },
  });
  const failed = once(child, 'exit').then(([code]) => Promise.reject(new Error(`couchrep ended with ${code}`)));
  const [line] = await Promise.race([once(createInterface(child.stdout), 'line'), failed]);
  failed.catch(() => undefined);
  return new Server(child, /listens on (http:[^,]+),/.exec(line)[1], dir);
}

/** Starts pouchdb-server with its own default store (LevelDB) on a free port. */
export async function startPouchdbServer() {
  const dir = mkdtempSync(join(process.env.BENCH_DIR ?? tmpdir(), 'pouchdb-bench-'));
  const port = await freePort();
  const child = spawn(process.execPath, [pouchdbServer, '--no-stdout-logs', '--port', port], {
    cwd: dir,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return answering(new Server(child, `http://127.0.0.1:${port}`, dir));
}

/** Starts nginx on a free port as a plain proxy of a CouchDB, as CouchDB's documentation has it; `undefined` where it isn't installed. */
export async function nginx(url) {
  const dir = newDir();
  const port = await freePort();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${dir}/${name};`);
  writeFileSync(
    join(dir, 'nginx.conf'),
    `daemon off; pid ${dir}/pid; error_log stderr error; worker_processes auto;
    events { worker_connections 4096; }
    http {
      access_log off; ${temporary.join(' ')} client_max_body_size 0; keepalive_requests 1000000;
      upstream couchdb { server ${new URL(url).host}; keepalive 256; keepalive_requests 1000000; }
      server {
        listen 127.0.0.1:${port} backlog=1024;
        location / {
          proxy_pass http://couchdb; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
          proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
          proxy_redirect off; proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h;
        }
      }
    }`,
  );
  const child = spawn('nginx', ['-p', dir, '-c', join(dir, 'nginx.conf'), '-e', 'stderr'], { stdio: ['ignore', 'ignore', 'inherit'] });
  if (!(await once(child, 'spawn').then(() => true, () => false))) {
    rmSync(dir, { recursive: true });
    return undefined;
  }
  return answering(new Server(child, `http://127.0.0.1:${port}`, dir));
}

/** Waits until somebody answers there. */
async function answering(server) {
  for (let tries = 0; !(await fetch(server.url).then((answer) => answer.ok, () => false)); tries += 1) {
    if (tries === 200) throw new Error(`nobody answers at ${server.url}`);
    await sleep(100);
  }
  return server;
}

async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  return port;
}

/** The process that listens on a URL's port on this machine, if it is on this machine and may be looked at. */
export function listener(url) {
  if (!['127.0.0.1', 'localhost', '[::1]'].includes(new URL(url).hostname)) return undefined;
  const port = portInHex(url);
  const LISTEN = '0A';
  const row = connections().find(({ at, state }) => at.endsWith(`:${port}`) && state === LISTEN);
  const holds = (pid) => {
    try {
      return readdirSync(`/proc/${pid}/fd`).some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${row.inode}]`);
    } catch {
      // Not ours, or gone meanwhile.
      return false;
    }
  };
  return row && readdirSync('/proc').filter((name) => /^\d+$/.test(name)).find(holds);
}

const portInHex = (url) => Number(new URL(url).port || 80).toString(16).toUpperCase().padStart(4, '0');

/** TCP's table: the address of this end, the state, and the socket's inode. */
function connections() {
  const lines = ['tcp', 'tcp6'].flatMap((name) => readFileSync(`/proc/net/${name}`, 'utf8').trim().split('\n').slice(1));
  return lines.map((line) => line.trim().split(/\s+/)).map((words) => ({ at: words[1], state: words[3], inode: words[9] }));
}

/** Runs couchrep as a command to its end. */
export async function runCouchrep(...args) {
  const child = spawn(ownBinary, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`couchrep ${args[0]} ended with ${code}`);
}

/** Ends whatever still runs. */
export const stopAll = () => Promise.all([...running].map((server) => server.stop()));
