// What couchrep's own page costs while many have it open: 10,000 jobs, of which 37 fail, and 20 pages in a Chromium, all of them looked at.
//
// Counted for a minute: CPU of the server and of the browser, and what comes over the wire for each page.

import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

import { launch, skip } from '../tests/interop/chromium.mjs';
import { cpuS, startCouchrep, stopAll } from './children.mjs';
import { ask } from './data.mjs';
import { number, table } from './table.mjs';

const FAILING = 37;
const PAGES = 20;
const WATCHED_S = 60;
const SETTLING_S = 5;
const BULK = 1000;

export async function pages(options) {
  if (skip) return console.log(`pages: ${skip}`);
  const columns = ['server: % of a core', 'browser: % of a core', 'requests', 'not modified', 'KiB a page'];
  const { row } = table(`${PAGES} open pages, a minute`, columns);
  for (const jobs of options.jobs.split(',').map(Number)) {
    try {
      const server = await startCouchrep();
      await fill(server.url, jobs);
      const { server: ours, browser, asked, same, bytes } = await opened(server);
      row(`${number(jobs)} jobs`, number(ours, 2), number(browser, 1), number(asked), number(same), number(bytes / PAGES / 1024, 1));
    } finally {
      await stopAll();
    }
  }
}

/** Jobs that are documents, each with a selector of its own; those that fail have no source. */
async function fill(url, jobs) {
  for (const db of ['source', 'target']) await ask('PUT', `${url}/${db}`);
  const described = (n) => ({
    _id: `job-${n}`, source: `${url}/${n < FAILING ? `none-${n}` : 'source'}`, target: `${url}/target`, continuous: true, selector: { n },
  });
  for (let start = 0; start < jobs; start += BULK) {
    const docs = Array.from({ length: Math.min(BULK, jobs - start) }, (_, n) => described(start + n));
    await ask('POST', `${url}/_replicator/_bulk_docs`, { docs });
  }
  const overview = () => ask('GET', `${url}/_couchrep/jobs?limit=0`);
  while ((await overview()).caught_up < jobs - FAILING) await sleep(1000);
}

/** Opens the pages, and counts. */
async function opened(server) {
  const browser = await launch();
  const counted = { asked: 0, same: 0, bytes: 0 };
  try {
    for (let n = 0; n < PAGES; n += 1) {
      const page = await (await browser.newContext()).newPage();
      await page.goto(`${server.url}/_couchrep/`);
      await page.locator('#jobs li').first().waitFor();
      const wire = await page.context().newCDPSession(page);
      await wire.send('Network.enable');
      wire.on('Network.loadingFinished', ({ encodedDataLength }) => Object.assign(counted, { asked: counted.asked + 1, bytes: counted.bytes + encodedDataLength }));
      wire.on('Network.responseReceived', ({ response }) => (counted.same += response.status === 304));
    }
    await sleep(SETTLING_S * 1000);
    Object.assign(counted, { asked: 0, same: 0, bytes: 0 });
    const before = [server.cpuS(), browserCpuS()];
    await sleep(WATCHED_S * 1000);
    const share = (now, then) => ((now - then) / WATCHED_S) * 100;
    return { ...counted, server: share(server.cpuS(), before[0]), browser: share(browserCpuS(), before[1]) };
  } finally {
    await browser.close();
  }
}

/** Of all Chromiums: no other may run beside. */
function browserCpuS() {
  const pids = execFileSync('pgrep', ['chromium'], { encoding: 'utf8' }).trim().split('\n');
  return pids.reduce((sum, pid) => sum + cpuOf(pid), 0);
}

function cpuOf(pid) {
  try {
    return cpuS(pid);
  } catch {
    return 0; // It has ended.
  }
}
