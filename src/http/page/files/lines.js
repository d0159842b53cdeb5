// Values over time as a line: small and bare in a row, with axes in a job's details.
//
// Values come oldest first, one each `step` seconds, the newest last; null is a gap. The scale begins at zero.

import { html, useState } from './vendor/preact-htm.js';
import { duration, isNumber, shortCount } from './words.js';

// A round number that isn't smaller: 1, 2, 5, 10, 20, 50, …
export function ceiling(values) {
  const most = Math.max(0, ...values.filter(isNumber));
  if (most <= 1) return 1;
  const size = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].find((n) => n * size >= most) * size;
}

// SVG path data of a line through the values, and of the area below it. `room` is how many values the width holds.
export function paths(values, room, width, height, top) {
  const x = (at) => ((room - values.length + at) / Math.max(1, room - 1)) * width;
  const y = (value) => height - (Math.max(0, value) / top) * (height - 2) - 1;
  let line = '', area = '', began = null;
  values.forEach((value, at) => {
    if (!isNumber(value)) return;
    const point = `${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    if (!isNumber(values[at - 1])) {
      began = x(at).toFixed(1);
      line += `M${point}`;
      area += `M${began} ${height}L${point}`;
    } else {
      line += `L${point}`;
      area += `L${point}`;
    }
    if (!isNumber(values[at + 1])) {
      if (!isNumber(values[at - 1])) line += 'h.01';
      area += `V${height}H${began}z`;
    }
  });
  return { line, area };
}

const ROOM = 90;

// The number beside it says the same, so a screen reader passes it by.
export function Line({ values, width = 72, height = 20, flat }) {
  const shown = (values ?? []).slice(-ROOM);
  const { line, area } = paths(shown, ROOM, width, height, ceiling(shown));
  return html`<svg class=${line || flat ? 'trend' : 'trend empty'} viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" aria-hidden="true">
    ${line ? html`<path class="area" d=${area} /><path class="stroke" d=${line} />`
      : flat && html`<path class="flat" d="M0 ${height - 1}H${width}" />`}
  </svg>`;
}

export function Chart({ title, values, step, unit = '' }) {
  const [pointed, point] = useState(null);
  const shown = (values ?? []).slice(-ROOM);
  const known = shown.filter(isNumber);
  const top = ceiling(shown);
  const { line, area } = paths(shown, ROOM, 360, 96, top);
  const say = (n) => `${n < 10 ? Math.round(n * 10) / 10 : shortCount(n)}${unit}`;
  const summary = known.length ? `now ${say(known.at(-1))}, most ${say(Math.max(...known))}` : 'nothing yet';
  const ago = (at) => duration((shown.length - 1 - at) * step);

  function over(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const at = Math.round(((event.clientX - box.left) / box.width) * (ROOM - 1)) - (ROOM - shown.length);
    point(isNumber(shown[at]) ? at : null);
  }

  const x = pointed === null ? 0 : ((ROOM - shown.length + pointed) / (ROOM - 1)) * 360;
  return html`<figure class="chart">
    <figcaption><b>${title}</b> <span>${pointed === null || !isNumber(shown[pointed]) ? summary
      : `${say(shown[pointed])}, ${pointed === shown.length - 1 ? 'now' : `${ago(pointed)} ago`}`}</span></figcaption>
    <div class="scale" aria-hidden="true"><span>${say(top)}</span><span>0</span></div>
    <svg class="trend" viewBox="0 0 360 96" preserveAspectRatio="none" role="img"
      aria-label="${title} of the last ${duration(ROOM * step)}: ${summary}" onPointerMove=${over} onPointerLeave=${() => point(null)}>
      <path class="grid" d="M0 1H360M0 48H360M0 95H360" />
      ${line && html`<path class="area" d=${area} /><path class="stroke" d=${line} />`}
      ${pointed !== null && html`<path class="cursor" d="M${x} 0V96" />`}
    </svg>
    <div class="span" aria-hidden="true"><span>${duration(ROOM * step)} ago</span><span>now</span></div>
  </figure>`;
}
