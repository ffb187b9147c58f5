// The report of a run: what is in `#data`, drawn with the helpers of `cards.js`, which stands before
// this in the same script.

const STATUS = { succeeded: "good", failed: "bad", cancelled: "warn", interrupted: "warn", running: "run", cloned: "good" };

function spent(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.round(seconds / 60);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function when(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? String(text ?? "") : date.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
}

function badge(status) {
  return el("span", { class: `badge ${STATUS[status] || "run"}` }, status);
}

function part(title, id, ...inner) {
  return el("section", { class: "part", id }, el("h2", {}, title), inner);
}

function head(data) {
  const run = data.run || {};
  const facts = [
    ["started", when(run.created_at)],
    ["took", spent(run.seconds ?? run.so_far)],
    ["by", [run.user, run.host].filter(Boolean).join(" on ")],
    ["with", ["python", "asyncflow"].map((name) => run.versions?.[name] && `${name === "python" ? "Python" : name} ${run.versions[name]}`).filter(Boolean).join(", ")],
    ["tags", (run.tags || []).join(", ")],
    ["resumes", run.origin_run_id],
  ].filter(([, fact]) => fact);
  return el(
    "header",
    {},
    el("div", { class: "title" }, el("h1", {}, run.flow || run.pathspec), badge(run.status)),
    el("p", { class: "muted path" }, run.pathspec),
    el("dl", { class: "facts" }, facts.map(([name, fact]) => [el("dt", {}, name), el("dd", {}, fact)])),
    data.what_now?.text && run.status !== "succeeded" ? el("p", { class: "now" }, data.what_now.text, data.what_now.command ? [" ", el("code", {}, data.what_now.command)] : null) : null,
    data.problem ? failure({ title: "Parts of this run cannot be read", text: data.problem.message }) : null,
  );
}

function boxes(data) {
  const run = data.run || {};
  const steps = data.steps || [];
  const sum = (name) => steps.reduce((total, step) => total + (step[name] || 0), 0);
  const tasks = sum("begun");
  const made = [
    { kind: "value", title: "Tasks", value: tasks, change: run.total && run.total !== tasks ? `of ${short(run.total)}` : "" },
    { kind: "value", title: "Took", value: spent(run.seconds ?? run.so_far), change: data.critical ? `${spent(data.critical.seconds)} on the critical path` : "" },
    { kind: "value", title: "Failed", value: sum("failed"), theme: sum("failed") ? "danger" : "default", change: sum("retried") ? `${short(sum("retried"))} retried` : "" },
  ];
  if (sum("cloned")) made.push({ kind: "value", title: "Taken over", value: sum("cloned"), change: "from the run that was resumed" });
  return el("div", { class: "row" }, made.map(value));
}

// --- graph -------------------------------------------------------------------------------------

const STEP_WIDTH = 150;
const STEP_HEIGHT = 42;
const COLUMN = 200;
const ROW = 68;

function drawGraph(data) {
  const graph = data.graph;
  if (!graph || !graph.nodes.length) return null;
  const steps = new Map((data.steps || []).map((step) => [step.step, step]));
  const x = (column) => 10 + column * COLUMN + STEP_WIDTH / 2;
  const y = (row) => 12 + row * ROW + STEP_HEIGHT / 2;
  const width = 20 + (graph.width - 1) * COLUMN + STEP_WIDTH;
  const isBack = graph.edges.some((edge) => edge.back);
  const height = 24 + Math.max(graph.height - 1, 0) * ROW + STEP_HEIGHT + (isBack ? 40 : 0);
  const edges = graph.edges.map((edge) => {
    const points = edge.points.map(([column, row]) => [x(column), y(row)]);
    if (points.length < 2) return null;
    let path;
    if (edge.back) {
      const [[ax, ay], [bx, by]] = [points[0], points[points.length - 1]];
      const low = Math.max(ay, by) + STEP_HEIGHT / 2 + 26;
      path = `M ${ax} ${ay + STEP_HEIGHT / 2} C ${ax} ${low}, ${bx} ${low}, ${bx} ${by + STEP_HEIGHT / 2}`;
    } else {
      const first = [points[0][0] + STEP_WIDTH / 2, points[0][1]];
      const last = [points[points.length - 1][0] - STEP_WIDTH / 2, points[points.length - 1][1]];
      const way = [first, ...points.slice(1, -1), last];
      path = `M ${way[0][0]} ${way[0][1]}`;
      for (let at = 1; at < way.length; at++) {
        const half = (way[at - 1][0] + way[at][0]) / 2;
        path += ` C ${half} ${way[at - 1][1]}, ${half} ${way[at][1]}, ${way[at][0]} ${way[at][1]}`;
      }
    }
    const label = edge.label ? svg("text", { class: "label", x: (points[0][0] + points[points.length - 1][0]) / 2, y: (points[0][1] + points[points.length - 1][1]) / 2 - 5 }, document.createTextNode(edge.label)) : null;
    return [svg("path", { class: edge.back ? "edge back" : "edge", d: path }), label];
  });
  const nodes = graph.nodes.map((node) => {
    const step = steps.get(node.step) || {};
    const state = step.failed ? "bad" : step.running || step.waiting ? "run" : step.interrupted || step.cancelled ? "warn" : step.begun ? "good" : "none";
    const done = (step.succeeded || 0) + (step.cloned || 0);
    const count = step.begun > 1 || step.expected > 1 ? `${short(done)}/${short(step.expected ?? step.begun)}` : step.begun ? spent(step.seconds) : "not begun";
    const name = node.step.length > 17 ? `${node.step.slice(0, 16)}…` : node.step;
    const box = svg("g", { class: `node ${state}`, transform: `translate(${x(node.x) - STEP_WIDTH / 2} ${y(node.y) - STEP_HEIGHT / 2})` },
      svg("rect", { width: STEP_WIDTH, height: STEP_HEIGHT, rx: 8 }),
      svg("rect", { class: "mark", width: 4, height: STEP_HEIGHT, rx: 2 }),
      svg("text", { class: "name", x: 14, y: 18 }, document.createTextNode(name)),
      svg("text", { class: "count", x: 14, y: 34 }, document.createTextNode(`${["step", node.step].includes(node.kind) ? "" : `${node.kind} · `}${count}`)));
    box.append(svg("title", {}, document.createTextNode([node.step, node.doc].filter(Boolean).join(": "))));
    return box;
  });
  return el("div", { class: "scrolls graph" }, svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "The graph of the flow" }, edges, nodes));
}

// --- timeline ----------------------------------------------------------------------------------

function drawTimeline(data) {
  const given = data.timeline;
  if (!given || !given.attempts) return null;
  const width = 920;
  const left = 150;
  const room = width - left - 10;
  const place = (time) => {
    for (const [begin, end, from, to] of given.pieces) {
      if (time <= end) return left + room * (from + (Math.max(time - begin, 0) / Math.max(end - begin, 1)) * (to - from));
    }
    return left + room;
  };
  const lines = [];
  let y = 26;
  const names = given.steps;
  const used = names.map(() => []);
  if (given.bars) for (const bar of given.bars) used[bar[1]].push(bar);
  names.forEach((name, step) => {
    const columns = given.columns?.steps.find((each) => each.step === name);
    if (!used[step].length && !columns) return;
    const title = svg("text", { class: "name", x: left - 10, y: y + 12, "text-anchor": "end" }, document.createTextNode(name.length > 20 ? `${name.slice(0, 19)}…` : name));
    title.append(svg("title", {}, document.createTextNode(name)));
    lines.push(title);
    if (columns) {
      const high = Math.max(...columns.running.map((each) => each[2]), 1);
      const wide = room / given.columns.count;
      for (const [first, count, running] of columns.running) lines.push(svg("rect", { class: "bar succeeded", x: left + first * wide, width: Math.max(count * wide, 0.7), y: y + 40 - 38 * (running / high), height: 38 * (running / high) }));
      for (const [first] of columns.failed) lines.push(svg("rect", { class: "bar failed", x: left + first * wide, width: Math.max(wide, 1.2), y: y + 36, height: 4 }));
      lines.push(svg("text", { class: "most", x: left - 10, y: y + 28, "text-anchor": "end" }, document.createTextNode(`up to ${short(high)} at once`)));
      y += 48;
      return;
    }
    const rows = [];
    for (const bar of used[step].sort((a, b) => a[3] - b[3])) {
      const end = bar[4] ?? given.now;
      let row = rows.findIndex((until) => until <= bar[3]);
      if (row < 0) row = rows.length < 24 ? rows.push(0) - 1 : rows.indexOf(Math.min(...rows));
      rows[row] = end;
      const from = place(bar[3]);
      const shape = svg("rect", { class: `bar ${bar[5]}`, x: from, width: Math.max(place(end) - from, 1.5), y: y + row * 16, height: 12, rx: 2 });
      shape.append(svg("title", {}, document.createTextNode(`${name}/${bar[0]}${bar[6] >= 0 ? ` [${bar[6]}]` : ""}: ${bar[5]}, ${spent((end - bar[3]) / 1000)}${bar[2] ? `, attempt ${bar[2] + 1}` : ""}`)));
      lines.push(shape);
    }
    y += Math.max(rows.length, 1) * 16 + 8;
  });
  const ticks = [];
  const grid = 6;
  for (let at = 0; at <= grid; at++) {
    const share = at / grid;
    const piece = given.pieces.find((each) => share <= each[3] + 1e-9) || given.pieces[given.pieces.length - 1];
    const time = piece[0] + ((share - piece[2]) / Math.max(piece[3] - piece[2], 1e-9)) * (piece[1] - piece[0]);
    const x = left + room * share;
    ticks.push(svg("line", { class: "grid", x1: x, x2: x, y1: 18, y2: y }), svg("text", { class: "tick", x, y: 12, "text-anchor": at === 0 ? "start" : at === grid ? "end" : "middle" }, document.createTextNode(spent(time / 1000))));
  }
  const gaps = given.pieces.slice(1).map((piece) => svg("line", { class: "gap", x1: left + room * piece[2], x2: left + room * piece[2], y1: 16, y2: y }));
  const note = gaps.length ? el("figcaption", {}, "Times in which nothing ran are left out, at the dashed lines.") : null;
  return el("figure", {}, el("div", { class: "scrolls timeline-box" }, svg("svg", { width, height: y + 4, viewBox: `0 0 ${width} ${y + 4}`, role: "img", "aria-label": "When each attempt ran" }, ticks, lines, gaps)), note);
}

function stepTable(data) {
  const rows = (data.steps || []).map((step) => [
    step.step, step.begun, (step.succeeded || 0) + (step.cloned || 0), step.failed, step.retried, spent(step.begun ? step.seconds : null),
  ]);
  return rows.length ? table({ headers: ["step", "begun", "succeeded", "failed", "retried", "time of its tasks"], rows, total: rows.length }) : null;
}

// --- all of it ---------------------------------------------------------------------------------

function drawReport(root, data) {
  root.className = "asyncflow-card report";
  const failed = (data.failed || []).map((each) => failure({ title: each.attempt ? `${each.task}, attempt ${each.attempt + 1}` : each.task, text: each.text, traceback: each.traceback }));
  const parameters = Object.entries(data.run?.parameters || {});
  const cards = (data.cards || []).map((card) => {
    const place = el("div", {});
    drawCard(place, card);
    return el("article", {}, el("h3", {}, `${card.pathspec.split("/").slice(2).join("/")} · ${card.name}`), place);
  });
  if (data.cards_left_out) cards.push(el("p", { class: "muted" }, `${short(data.cards_left_out)} more cards are not in this file.`));
  const parts = [
    ["Failures", failed],
    ["Graph", [drawGraph(data)]],
    ["Timeline", [drawTimeline(data)]],
    ["Steps", [stepTable(data)]],
    ["Parameters", parameters.length ? [facts({ rows: parameters.map(([name, text]) => [name, String(text)]) })] : []],
    ["Results", (data.results || []).map(component)],
    ["Cards", cards],
  ].map(([title, inner]) => [title, inner.filter(Boolean)]).filter(([, inner]) => inner.length);
  const anchor = (title) => title.toLowerCase();
  root.append(
    head(data),
    boxes(data),
    parts.length > 2 ? el("nav", { "aria-label": "Parts" }, parts.map(([title]) => el("a", { href: `#${anchor(title)}` }, title))) : "",
    ...parts.map(([title, inner]) => part(title, anchor(title), inner)),
    el("footer", { class: "muted" }, `Made by ${data.made.by}, ${when(data.made.at * 1000)}`),
  );
}

const reported = JSON.parse(document.getElementById("data")?.textContent || "{}").report;
if (reported) drawReport(document.getElementById("card"), reported);
