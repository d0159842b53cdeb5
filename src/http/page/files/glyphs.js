// The signs beside the words for states: each has a shape of its own, so colour is never all that tells them apart.

import { html } from './vendor/preact-htm.js';

const SHAPES = {
  warning: html`<path d="M8 1.8 15 14H1z" /><path class="ink" d="M8 6.2v3.6M8 11.9v.1" />`,
  cross: html`<circle cx="8" cy="8" r="7" /><path class="ink" d="m5.4 5.4 5.2 5.2m0-5.2-5.2 5.2" />`,
  done: html`<circle cx="8" cy="8" r="7" /><path class="ink" d="m4.8 8.3 2.2 2.2 4.2-4.6" />`,
  running: html`<circle cx="8" cy="8" r="7" /><path class="ink" d="M4.6 8h6.4M8.4 5.2 11.2 8l-2.8 2.8" />`,
  paused: html`<circle class="line" cx="8" cy="8" r="6.2" /><path class="line" d="M6.3 5.6v4.8M9.7 5.6v4.8" />`,
  waiting: html`<circle class="line" cx="8" cy="8" r="6.2" /><path class="line" d="M8 4.6V8l2.2 1.6" />`,
};

export const Glyph = ({ name }) =>
  html`<svg class="glyph" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">${SHAPES[name]}</svg>`;
