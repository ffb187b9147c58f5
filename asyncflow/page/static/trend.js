// How long the latest runs of a flow took, as a small line: one point for each run.

import { html } from "./lib.js";
import { url, useData } from "./api.js";
import { duration } from "./format.js";

/** A line over runs, oldest first; failed ones are marked. `points` are [seconds, status, label]. */
export function Line({ points, width = 120, height = 26, label }) {
  const known = points.map((point, place) => [place, ...point]).filter(([, seconds]) => seconds !== null);
  if (known.length < 2) return null;
  const most = Math.max(...known.map(([, seconds]) => seconds)) || 1;
  const x = (place) => 3 + (place / Math.max(points.length - 1, 1)) * (width - 6);
  const y = (seconds) => height - 4 - (seconds / most) * (height - 8);
  const path = known.map(([place, seconds], at) => `${at ? "L" : "M"}${x(place).toFixed(1)} ${y(seconds).toFixed(1)}`).join("");
  const [lastPlace, lastSeconds, lastStatus] = known[known.length - 1];
  const bad = known.filter(([, , status]) => status === "failed").slice(-12);
  const text = label ?? `The latest ${known.length} runs: ${duration(Math.min(...known.map((k) => k[1])))} to ${duration(most)}, the last one ${duration(lastSeconds)}`;
  return html`<svg class="trend" width=${width} height=${height} viewBox="0 0 ${width} ${height}" role="img" aria-label=${text}>
    <title>${text}</title>
    <path d=${`${path}V${height - 1}H${x(known[0][0]).toFixed(1)}Z`} class="fill" />
    <path d=${path} class="line" />
    ${bad.map(([place, seconds]) => html`<path d=${`M${x(place) - 2.2} ${y(seconds) - 2.2}l4.400 4.400m0-4.400-4.400 4.400`} class="bad" key=${place} />`)}
    ${lastStatus !== "failed" && html`<circle cx=${x(lastPlace)} cy=${y(lastSeconds)} r="2.200" class="last" />`}
  </svg>`;
}

/** The line of a flow. */
export function FlowTrend({ flow, width, height }) {
  const { data } = useData(url(["flows", flow, "durations"], { limit: 50 }), flow);
  if (!data) return null;
  const points = data.runs.map((run) => [run.seconds, run.status]);
  return html`<${Line} points=${points} width=${width} height=${height} />`;
}

/** The durations of a flow's steps over its runs, for `StepTrend`. */
export function useDurations(flow) {
  return useData(url(["flows", flow, "durations"], { limit: 50 }), flow).data;
}

/** The line of one step. */
export function StepTrend({ durations, step, width = 90, height = 22 }) {
  if (!durations) return null;
  const points = durations.runs.map((run) => [run.steps[step] ?? null, run.status]);
  return html`<${Line} points=${points} width=${width} height=${height} />`;
}
