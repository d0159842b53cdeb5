// Markdown tables, printed row by row as results come in.

import { availableParallelism, cpus } from 'node:os';

/** A number as people write it. */
export const number = (value, digits = 0) =>
  value.toLocaleString('en', { maximumFractionDigits: digits, minimumFractionDigits: digits });

/** Prints a title and a head; `row` prints a line below it. */
export function table(title, columns) {
  const line = (cells) => console.log(`| ${cells.join(' | ')} |`);
  console.log(`\n${title}, on ${availableParallelism()} cores (${cpus()[0].model.trim()}):\n`);
  line(['', ...columns]);
  console.log(`|${' --- |'.repeat(columns.length + 1)}`);
  return { row: (...cells) => line(cells) };
}
