// Markdown tables, printed row by row as results come in, and the numbers in them.

import { availableParallelism, cpus } from 'node:os';

/** A number as people write it. */
export const number = (value, digits = 0) =>
  value.toLocaleString('en', { maximumFractionDigits: digits, minimumFractionDigits: digits });

/** The middle one; of an even number, the lower of the two. */
export const median = (values) => values.toSorted((one, other) => one - other)[Math.floor((values.length - 1) / 2)];

/** The value that this share of all, 0.99 of them, doesn't exceed. */
export const part = (values, share) => values.toSorted((one, other) => one - other)[Math.ceil(share * values.length) - 1];

/** Prints a title and a head; `row` prints a line below it. */
export function table(title, columns) {
  const line = (cells) => console.log(`| ${cells.join(' | ')} |`);
  console.log(`\n${title}, on ${availableParallelism()} cores (${cpus()[0].model.trim()}):\n`);
  line(['', ...columns]);
  console.log(`|${' --- |'.repeat(columns.length + 1)}`);
  return { row: (...cells) => line(cells) };
}
