// The graph of a run's steps as SVG, with how each step stands; or with what a resume would do.

import { html, useEffect, useState } from "./lib.js";
import { duration, number } from "./format.js";
import { stateWord } from "./parts.js";
import { partsOf, stateOf } from "./steps.js";

const WIDTH = 148; // of a node; all sizes are CSS pixels
const HEIGHT = 46;
const GAP = 50; // between columns, for the edges
const ROW_GAP = 20;
const PAD = 16;
const LEAST_SCALE = 0.66; // smaller, and the names could not be read: then it scrolls
const MOST_DETAILS = 90; // nodes with bars and second lines: beyond, names and colours alone

const ICONS = {
  succeeded: "ok",
  cloned: "taken",
  failed: "fail",
  running: "run",
  interrupted: "warn",
  waiting: "again",
  cancelled: "stop",
  pending: "none",
};

/** What a node's kind adds to its name, for people who cannot see its form. */
const KINDS = {
  foreach: "a foreach",
  join: "a join",
  condition: "a condition",
  split: "a split",
  gang: "a gang",
};

/** `href` gives the address behind a step; `plan` is what a resume would do, by step. */
export function Graph({ graph, steps = [], href, plan = null, critical = [], selected = null }) {
  const upright = useNarrow();
  const place = placing(graph, upright);
  const byStep = new Map(steps.map((step) => [step.step, step]));
  const chain = new Set(critical);
  const ways = new Set(critical.slice(1).map((step, at) => `${critical[at]} ${step}`));
  const detailed = graph.nodes.length <= MOST_DETAILS;
  const label = `The graph: ${graph.nodes.length} steps`;
  const sizes = `width:100%;height:auto;max-width:${place.width}px;min-width:${Math.round(place.width * LEAST_SCALE)}px`;
  return html`<div class="graph scroll-x" tabindex="-1">
    <svg viewBox="0 0 ${place.width} ${place.height}" style=${sizes} role="group" aria-label=${label}>
      <defs>
        <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto-start-reverse">
          <path d="M1 1 7 4 1 7" class="arrow" />
        </marker>
      </defs>
      ${graph.edges.map(
        (edge) => html`<${Edge} edge=${edge} place=${place} from=${byStep.get(edge.from)} critical=${ways.has(`${edge.from} ${edge.to}`)} key=${`${edge.from} ${edge.to} ${edge.label}`} />`,
      )}
      ${graph.nodes.map(
        (node) => html`<${Step}
          node=${node}
          at=${place.at(node.x, node.y)}
          step=${byStep.get(node.step)}
          plan=${plan?.get(node.step)}
          planned=${plan !== null}
          href=${href?.(node.step)}
          detailed=${detailed}
          critical=${chain.has(node.step)}
          selected=${selected === node.step}
          key=${node.step}
        />`,
      )}
    </svg>
  </div>`;
}

function Step({ node, at, step, plan, planned, href, detailed, critical, selected }) {
  const [x, y] = at;
  const state = step ? stateOf(step) : "pending";
  const look = planned ? lookOfPlan(plan) : { name: state, icon: ICONS[state] ?? "none" };
  const many = node.kind === "foreach" || node.kind === "gang" || (step?.expected ?? 0) > 1;
  const second = planned ? planText(plan) : countText(step, node);
  const title = [node.step, KINDS[node.kind], planned ? planText(plan) : `${stateWord(state)}, ${second}`, critical && "on the critical path", node.doc]
    .filter(Boolean)
    .join(" · ");
  const names = ["node", `is-${look.name}`, node.kind, selected && "selected"];
  const body = html`
    <title>${title}</title>
    ${many && detailed && html`<rect x=${x + 4} y=${y - 4} width=${WIDTH} height=${HEIGHT} rx="8" class="behind" />`}
    <rect x=${x} y=${y} width=${WIDTH} height=${HEIGHT} rx=${node.kind === "condition" ? 22 : 8} class="box" />
    <svg x=${x + 11} y=${y + (detailed ? 9 : 15)} width="15" height="15" viewBox="0 0 16 16" class="state-icon">
      <use href=${`#i-${look.icon}`} class=${look.icon === "run" ? "spin" : ""} />
    </svg>
    <text x=${x + 33} y=${y + (detailed ? 20 : 27)} class="name">${cutName(node.step)}</text>
    ${detailed && html`<text x=${x + 33} y=${y + 35} class="second">${second}</text>`}
    ${detailed && !planned && step && html`<${NodeBar} step=${step} x=${x} y=${y} round=${node.kind === "condition"} />`}
  `;
  if (!href) return html`<g class=${names.filter(Boolean).join(" ")} data-step=${node.step}>${body}</g>`;
  return html`<a class=${names.filter(Boolean).join(" ")} href=${href} data-step=${node.step} data-state=${state} aria-label=${title}>${body}</a>`;
}

function NodeBar({ step, x, y, round }) {
  const parts = partsOf(step);
  const all = Math.max(parts.total ?? 0, parts.done + parts.taken + parts.failed + parts.running + parts.stopped);
  if (all < 2) return null;
  const inset = round ? 33 : 10;
  const width = WIDTH - 10 - inset;
  const done = ((parts.done + parts.taken) / all) * width;
  const failed = (parts.failed / all) * width;
  const stopped = (parts.stopped / all) * width;
  return html`<path d=${`M${x + inset} ${y + 41.5}h${width}`} class="track" />
    ${done > 0 && html`<path d=${`M${x + inset} ${y + 41.5}h${Math.max(done, 1)}`} class="track done" />`}
    ${failed > 0 && html`<path d=${`M${x + inset + done} ${y + 41.5}h${Math.max(failed, 2)}`} class="track bad" />`}
    ${stopped > 0 && html`<path d=${`M${x + inset + done + failed} ${y + 41.5}h${Math.max(stopped, 2)}`} class="track stopped" />`}`;
}

function Edge({ edge, place, from, critical }) {
  const points = place.route(edge);
  const begun = from && from.succeeded + from.cloned > 0;
  const middle = points.middle;
  return html`<g class=${`edge ${edge.back ? "back" : ""} ${begun ? "begun" : ""} ${critical ? "critical" : ""}`}>
    <path d=${points.path} marker-end="url(#arrow)" />
    ${edge.label && html`<text x=${middle[0]} y=${middle[1] - 5} class="label">${cutName(edge.label, 14)}</text>`}
  </g>`;
}

// --- where things are drawn ---------------------------------------------------------------------

/** Turns the server's grid into pixels; upright, its columns go down the page. */
function placing(graph, upright) {
  const across = WIDTH + (upright ? 20 : GAP);
  const down = HEIGHT + (upright ? 34 : ROW_GAP);
  const at = (x, y) => (upright ? [PAD + y * across, PAD + x * down] : [PAD + x * across, PAD + y * down]);
  const side = upright ? 0 : 1;
  const detours = new Map();
  graph.edges.filter((edge) => edge.back).forEach((edge, count) => {
    detours.set(edge, beside(graph, edge, at, side) + 18 + (count % 3) * 12);
  });
  const corners = graph.nodes.map((node) => at(node.x, node.y));
  const reach = [
    Math.max(0, ...corners.map(([x]) => x + WIDTH)),
    Math.max(0, ...corners.map(([, y]) => y + HEIGHT)),
  ];
  reach[side] = Math.max(reach[side], ...[...detours.values()].map((far) => far + (upright ? 34 : 4)));
  return {
    at,
    width: reach[0] + PAD + 4,
    height: reach[1] + PAD,
    route: (edge) => (edge.back ? backRoute(edge, at, detours.get(edge), upright) : route(edge, at, upright)),
  };
}

/** The far side of all nodes between both ends of an edge that leads back. */
function beside(graph, edge, at, side) {
  const ends = edge.points.map(([x]) => x);
  const [first, last] = [Math.min(...ends), Math.max(...ends)];
  const passed = graph.nodes.filter((node) => node.x >= first && node.x <= last);
  return Math.max(...passed.map((node) => at(node.x, node.y)[side] + (side ? HEIGHT : WIDTH)));
}

/** An edge as an SVG path from one node's side to the other's, and the middle of it. */
function route(edge, at, upright) {
  const centres = edge.points.map(([x, y]) => {
    const [left, top] = at(x, y);
    return [left + WIDTH / 2, top + HEIGHT / 2];
  });
  const first = [...centres[0]];
  const last = [...centres[centres.length - 1]];
  const inner = centres.slice(1, -1);
  if (upright) {
    first[1] += HEIGHT / 2;
    last[1] -= HEIGHT / 2 + 2;
  } else {
    first[0] += WIDTH / 2;
    last[0] -= WIDTH / 2 + 2;
  }
  const points = [first, ...inner, last];
  let path = `M${first.join(" ")}`;
  for (let place = 1; place < points.length; place += 1) {
    const [ax, ay] = points[place - 1];
    const [bx, by] = points[place];
    path += upright
      ? `C${ax} ${(ay + by) / 2} ${bx} ${(ay + by) / 2} ${bx} ${by}`
      : `C${(ax + bx) / 2} ${ay} ${(ax + bx) / 2} ${by} ${bx} ${by}`;
  }
  const half = Math.floor((points.length - 1) / 2);
  return { path, middle: between(points[half], points[half + 1]) };
}

/** A way back, around the nodes: it leaves and arrives at their long sides. */
function backRoute(edge, at, far, upright) {
  const [side, along] = upright ? [0, 1] : [1, 0];
  const ends = [edge.points[0], edge.points[edge.points.length - 1]].map(([x, y]) => {
    const corner = at(x, y);
    return { along: corner[along] + (upright ? HEIGHT : WIDTH) / 2, side: corner[side] + (upright ? WIDTH : HEIGHT) };
  });
  const point = (a, s) => (upright ? `${s} ${a}` : `${a} ${s}`);
  const itself = Math.abs(ends[0].along - ends[1].along) < 1;
  const spread = upright ? 10 : 26;
  const from = ends[0].along + (itself ? spread : 0);
  const to = ends[1].along - (itself ? spread : 0);
  const middle = (from + to) / 2;
  const path =
    `M${point(from, ends[0].side)}C${point(from, far)} ${point(from, far)} ${point(middle, far)}` +
    `S${point(to, far)} ${point(to, ends[1].side + 2)}`;
  return { path, middle: upright ? [far + 4, middle + 8] : [middle, far + 8] };
}

function between(a, b) {
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}

// --- words ---------------------------------------------------------------------------------------

function countText(step, node) {
  if (!step) return "not begun";
  const done = step.succeeded + step.cloned;
  if (step.expected === null) return step.begun ? `${number(step.begun)} begun` : "not begun";
  if (step.expected > 1 || node.kind === "foreach") {
    return step.expected > 1 ? `${number(done)} / ${number(step.expected)}` : wall(step);
  }
  return wall(step);
}

function wall(step) {
  const isTimed = step.first !== null && step.first !== undefined;
  if (!isTimed) return stateWord(stateOf(step));
  if (step.running || step.waiting || step.last === null) return stateWord(stateOf(step)).split(" ")[0];
  return duration((step.last - step.first) / 1000);
}

function lookOfPlan(plan) {
  if (!plan || (!plan.reused && !plan.to_run && !plan.at_least)) return { name: "pending", icon: "none" };
  if (!plan.to_run && !plan.at_least) return { name: "cloned", icon: "taken" };
  return { name: "running", icon: "play" };
}

function planText(plan) {
  if (!plan) return "";
  const run = plan.to_run ? `${number(plan.to_run)}${plan.at_least ? "+" : ""} to run` : "";
  const kept = plan.reused ? `${number(plan.reused)} kept` : "";
  return [run, kept].filter(Boolean).join(", ") || (plan.at_least ? "perhaps to run" : "–");
}

function cutName(name, most = 15) {
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}

/** Whether the page is so narrow that a graph had better go downwards. */
export function useNarrow(most = 720) {
  const query = `(max-width: ${most}px)`;
  const [narrow, setNarrow] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const look = () => setNarrow(list.matches);
    look();
    list.addEventListener("change", look);
    return () => list.removeEventListener("change", look);
  }, [query]);
  return narrow;
}
