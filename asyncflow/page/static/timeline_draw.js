// Draws a timeline onto a canvas: bars, or how many tasks ran at a time where there are too many.

import { offset } from "./format.js";
import { rowsOf, Scale, tick } from "./timeline_scale.js";

export const AXIS = 26; // pixels for the times above the lanes
const HEAD = 20; // for a step's name, where it stands above its lane
const AREA = 52; // the height of a lane of numbers
const LANE_GAP = 12;
const MOST_HEIGHT = 6000; // a canvas has its limits, and so have eyes

/** What is drawn where. `named` is 0 if names stand above the lanes, else how wide their column is. */
export function arrange(data, width, named) {
  const scale = new Scale(data.pieces, Math.max(width - named - 12, 50));
  const lanes = data.bars ? barLanes(data, named) : areaLanes(data, named);
  const height = lanes.length ? lanes[lanes.length - 1].bottom + 10 : AXIS + 30;
  return { scale, lanes, height, left: named, width };
}

function barLanes(data, named) {
  const rows = rowsOf(data.bars, Math.max(data.now, data.to));
  const all = [...rows.values()].reduce((sum, lane) => sum + lane.ends.length, 0);
  const room = Math.min(MOST_HEIGHT, Math.max(420, all * 3));
  const thick = Math.max(2, Math.min(17, Math.floor(room / Math.max(all, 1)) - 2));
  const gap = thick > 6 ? 3 : 1;
  let top = AXIS + 8;
  return data.steps.flatMap((step, index) => {
    const found = rows.get(index);
    if (!found) return [];
    const head = named ? 0 : HEAD;
    const bottom = top + head + Math.max(found.ends.length * (thick + gap), named ? 17 : 0);
    const lane = { step, top, head, bottom, thick, gap, bars: found.bars, rows: found.ends.length };
    top = bottom + LANE_GAP;
    return [lane];
  });
}

function areaLanes(data, named) {
  let top = AXIS + 8;
  return data.columns.steps.map((found) => {
    const head = named ? 0 : HEAD;
    const bottom = top + head + AREA;
    const most = Math.max(1, ...found.running.map((run) => run[2]));
    const lane = { ...found, top, head, bottom, most, count: data.columns.count };
    top = bottom + LANE_GAP;
    return lane;
  });
}

/** The colours of the page as they are now, for a canvas, which has no style sheet. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: of("text"),
    muted: of("muted"),
    line: of("line"),
    panel: of("panel"),
    sunken: of("sunken"),
    focus: of("focus"),
    succeeded: of("ok"),
    cloned: of("ok"),
    failed: of("fail"),
    running: of("run"),
    interrupted: of("warn"),
    cancelled: of("idle"),
    font: of("font") || "sans-serif",
  };
}

/** Draw it all. `selection` is [from x, to x] while the mouse chooses a part; `hot` a bar. */
export function draw(canvas, data, shape, { selection = null, hot = null } = {}) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [shape.width, shape.height];
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  const colour = colours();
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  axis(context, shape, colour);
  for (const lane of shape.lanes) {
    context.fillStyle = colour.line;
    context.globalAlpha = 0.6;
    context.fillRect(0, lane.top - LANE_GAP / 2, width, 1);
    context.globalAlpha = 1;
    name(context, shape, lane, colour);
    if (data.bars) bars(context, data, shape, lane, colour, hot);
    else area(context, shape, lane, colour);
  }
  if (selection) {
    const [a, b] = [Math.min(...selection), Math.max(...selection)];
    context.fillStyle = colour.focus;
    context.globalAlpha = 0.16;
    context.fillRect(a, AXIS, b - a, height - AXIS);
    context.globalAlpha = 1;
    context.fillRect(a, AXIS, 1, height - AXIS);
    context.fillRect(b - 1, AXIS, 1, height - AXIS);
  }
}

function axis(context, shape, colour) {
  context.font = `11px ${colour.font}`;
  context.textBaseline = "middle";
  for (const [time, x, pace] of shape.scale.ticks()) {
    const at = Math.round(shape.left + x) + 0.5;
    context.strokeStyle = colour.line;
    context.beginPath();
    context.moveTo(at, AXIS - 6);
    context.lineTo(at, shape.height);
    context.stroke();
    context.fillStyle = colour.muted;
    const text = tick(time, pace);
    const wide = context.measureText(text).width;
    context.fillText(text, Math.min(at + 4, shape.width - wide - 2), 11);
  }
  for (const x of shape.scale.cuts()) {
    const at = Math.round(shape.left + x);
    context.fillStyle = colour.sunken;
    context.fillRect(at - 4, AXIS - 6, 8, shape.height);
    context.strokeStyle = colour.muted;
    context.setLineDash([2, 3]);
    context.beginPath();
    context.moveTo(at + 0.5, AXIS - 6);
    context.lineTo(at + 0.5, shape.height);
    context.stroke();
    context.setLineDash([]);
  }
}

function name(context, shape, lane, colour) {
  context.font = `12px ${colour.font}`;
  context.fillStyle = colour.text;
  context.textBaseline = "middle";
  if (shape.left) {
    const middle = Math.min((lane.top + lane.bottom) / 2, lane.top + 26);
    context.fillText(fitting(context, lane.step, shape.left - 22), 8, middle);
  } else {
    context.fillText(fitting(context, lane.step, shape.width - 90), 2, lane.top + 8);
  }
  if (lane.most) {
    context.font = `11px ${colour.font}`;
    context.fillStyle = colour.muted;
    const text = lane.running.length ? `up to ${lane.most} at once` : "none in this part";
    if (shape.left) context.fillText(fitting(context, text, shape.left - 22), 8, lane.top + 43);
    else context.fillText(text, shape.width - context.measureText(text).width - 4, lane.top + 8);
  }
}

function fitting(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > width) end -= 1;
  return `${text.slice(0, end)}…`;
}

function bars(context, data, shape, lane, colour, hot) {
  const now = Math.max(data.now, data.to);
  for (const [row, bar] of lane.bars) {
    const [x, y, width] = boxOf(shape, lane, row, bar, now);
    context.fillStyle = colour[bar[5]] ?? colour.cancelled;
    context.globalAlpha = hot && hot !== bar ? 0.5 : bar[5] === "running" ? 0.75 : 0.9;
    if (lane.thick > 5 && width > 5) {
      context.beginPath();
      context.roundRect(x, y, width, lane.thick, 3);
      context.fill();
    } else {
      context.fillRect(x, y, width, lane.thick);
    }
    if (bar[5] === "failed" && lane.thick >= 8) cross(context, x, y, lane.thick, width, colour);
    context.globalAlpha = 1;
  }
}

/** Failures have a mark of their own: colour alone would not tell them from others. */
function cross(context, x, y, thick, width, colour) {
  if (width < thick) return;
  context.strokeStyle = colour.panel;
  context.lineWidth = 1.6;
  context.beginPath();
  const [a, b, r] = [x + thick / 2 + 1, y + thick / 2, thick / 4.5];
  context.moveTo(a - r, b - r);
  context.lineTo(a + r, b + r);
  context.moveTo(a - r, b + r);
  context.lineTo(a + r, b - r);
  context.stroke();
  context.lineWidth = 1;
}

function area(context, shape, lane, colour) {
  const left = shape.left;
  const base = lane.bottom;
  const height = AREA - 8;
  const column = shape.scale.width / lane.count;
  context.fillStyle = colour.running;
  context.globalAlpha = 0.72;
  for (const [first, count, running] of lane.running) {
    const tall = Math.max((running / lane.most) * height, 1);
    context.fillRect(left + first * column, base - tall, Math.max(count * column, 1), tall);
  }
  context.globalAlpha = 1;
  context.fillStyle = colour.line;
  context.fillRect(left, base, shape.scale.width, 1);
  context.fillStyle = colour.failed;
  for (const [at] of lane.failed) {
    const x = left + at * column;
    context.fillRect(x, base - height - 4, Math.max(column, 2), height + 4);
    context.beginPath();
    context.moveTo(x - 3, base - height - 8);
    context.lineTo(x + Math.max(column, 2) + 3, base - height - 8);
    context.lineTo(x + Math.max(column, 2) / 2, base - height - 2);
    context.fill();
  }
}

function boxOf(shape, lane, row, bar, now) {
  const begin = shape.scale.x(bar[3]);
  const end = shape.scale.x(bar[4] ?? now);
  const y = lane.top + lane.head + row * (lane.thick + lane.gap);
  return [shape.left + begin, y, Math.max(end - begin, 1.5), lane.thick];
}

/** What is at a place: a bar and its step, or the numbers of a column. */
export function foundAt(data, shape, x, y) {
  const lane = shape.lanes.find((each) => y >= each.top - 2 && y <= each.bottom + 2);
  if (!lane || x < shape.left - 2) return null;
  if (!data.bars) return columnAt(shape, lane, x);
  const now = Math.max(data.now, data.to);
  let best = null;
  for (const [row, bar] of lane.bars) {
    const [left, top, width, height] = boxOf(shape, lane, row, bar, now);
    if (y < top - 1 || y > top + height + 1) continue;
    const far = Math.max(left - x, x - left - width, 0);
    if (far <= 4 && (!best || far < best.far)) best = { far, bar, step: lane.step };
  }
  return best;
}

function columnAt(shape, lane, x) {
  const column = Math.floor(((x - shape.left) / shape.scale.width) * lane.count);
  const run = lane.running.find(([first, count]) => column >= first && column < first + count);
  const failed = lane.failed.filter(([at]) => Math.abs(at - column) <= 1).reduce((sum, [, n]) => sum + n, 0);
  return { step: lane.step, running: run ? run[2] : 0, failed, at: offset(shape.scale.time(x - shape.left)) };
}
