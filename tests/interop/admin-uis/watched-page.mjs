// A page of a browser of its own, which remembers what failed on it and what it was told, and takes pictures of itself
// if SCREENSHOTS names a directory for them.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

/** Opens one; `refused` are the answers that said no, `broken` the errors of its scripts, `told` everything that couchrep answered. */
export async function openPage(browser, name) {
  const context = await browser.newContext({ viewport: { width: 1300, height: 900 } });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  const watched = { page, context, refused: [], broken: [], told: [], close: () => context.close() };
  page.on('pageerror', (error) => watched.broken.push(error.message));
  page.on('response', (response) => {
    const { pathname, search } = new URL(response.url());
    const asked = `${response.request().method()} ${pathname}${search}`;
    if (response.status() >= 400) watched.refused.push(`${response.status()} ${asked}`);
    if (!pathname.startsWith('/_utils/')) {
      response.text().then((text) => watched.told.push(`${asked}: ${text}`), () => undefined);
    }
  });
  let pictures = 0;
  watched.picture = async (of) => {
    const dir = process.env.SCREENSHOTS;
    if (!dir) return;
    await mkdir(dir, { recursive: true });
    // What fades in or out has done so.
    await page.waitForTimeout(500);
    await page.screenshot({ path: join(dir, `${name}-${String((pictures += 1)).padStart(2, '0')}-${of}.png`) });
  };
  return watched;
}

/** What of a list no pattern stands for. */
export const beyond = (list, patterns) => list.filter((entry) => !patterns.some((pattern) => pattern.test(entry)));
