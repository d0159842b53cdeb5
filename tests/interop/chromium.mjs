// Headless Chromium. CHROMIUM names the program; without it `chromium` is looked for in PATH. Where there is none, `skip` says so.

import { execFileSync } from 'node:child_process';

import { chromium } from 'playwright-core';

const executablePath = process.env.CHROMIUM ?? found('chromium');

/** Why tests in a browser are skipped here, or false. */
export const skip = executablePath ? false : 'there is no chromium here: set CHROMIUM, or install Debian\'s package';

/** Starts one. */
export function launch() {
  const args = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'];
  args.push('--disable-component-update', '--disable-sync');
  return chromium.launch({ executablePath, args });
}

function found(program) {
  try {
    return execFileSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).trim();
  } catch {
    return undefined;
  }
}
