// Draws a card from plain data (docs/reference/cards.md). It makes elements of a few kinds and puts
// text into them: nothing here parses markup. Only a card that is HTML gets a frame for that, which
// can reach nothing of the page around it.
//
// `drawCard(root, card)` draws a card, or changes what was drawn before. In a file or frame of its own
// this draws what is in `#data`, and then each card that the page around it posts. It imports nothing,
// so that it can stand within one file.

const SVG = "http://www.w3.org/2000/svg";
const MOST_NODES = 2000; // of a tree of JSON

export function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, String(value));
  element.append(...children.flat(Infinity).filter(Boolean));
  return element;
}

// --- numbers -----------------------------------------------------------------------------------

function short(number) {
  if (Number.isInteger(number)) return Math.abs(number) < 1e15 ? number.toLocaleString("en-US") : String(number);
  const size = Math.abs(number);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return number.toExponential(4);
  return number.toLocaleString("en-US", { maximumFractionDigits: size >= 1000 ? 2 : size >= 1 ? 4 : 6 });
}

function share(value, max) {
  const part = Number(value) / Number(max);
  return Number.isFinite(part) ? Math.min(Math.max(part, 0), 1) : 0;
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
}

// --- kinds -------------------------------------------------------------------------------------

const TAGS = new Set(
  "p h1 h2 h3 h4 h5 h6 ul ol li blockquote table thead tbody tr th td em strong s span code pre br hr".split(" "),
);
const LINK = /^(https?:\/\/|mailto:|#)/i;
const PICTURE = /^data:image\/(png|jpeg|gif|webp);base64,/i;

function tree(nodes) {
  return (nodes || []).map((node) => {
    if (!Array.isArray(node)) return String(node);
    const [tag, children, given] = node;
    const inner = tree(children);
    const more = given || {};
    if (tag === "a" && LINK.test(more.href || "")) {
      return el("a", { href: more.href, target: "_blank", rel: "noopener noreferrer" }, inner);
    }
    if (tag === "img") return PICTURE.test(more.src || "") ? el("img", { src: more.src, alt: more.alt }) : "";
    if (!TAGS.has(tag)) return el("span", {}, inner);
    if (tag === "table") return el("div", { class: "scrolls" }, el("table", {}, inner));
    return el(tag, {
      class: more.code ? `code-${more.code}` : more.align ? `align-${more.align}` : undefined,
      start: more.start,
    }, inner);
  });
}

function code(part) {
  const tokens = part.tokens || [["", part.text]];
  return el("pre", { class: "code" }, tokens.map(([kind, text]) => (kind ? el("span", { class: `code-${kind}` }, text) : text)));
}

function table(part) {
  const rows = part.rows || [];
  const width = Math.max((part.headers || []).length, ...rows.map((row) => row.length), 0);
  const numeric = [];
  for (let column = 0; column < width; column++) {
    const cells = rows.map((row) => row[column]).filter((cell) => cell !== "" && cell !== undefined);
    const numbers = cells.filter((cell) => typeof cell === "number").length;
    numeric.push(numbers > 0 && 2 * numbers >= cells.length);
  }
  const align = (column) => (numeric[column] ? "number" : undefined);
  const cell = (value, column) => {
    if (typeof value === "number") return el("td", { class: "number", title: String(value) }, short(value));
    if (value && typeof value === "object") return el("td", { class: align(column) }, component(value));
    return el("td", { class: align(column) }, String(value ?? ""));
  };
  const head = (part.headers || []).length
    ? el("thead", {}, el("tr", {}, part.headers.map((name, column) => el("th", { class: align(column), scope: "col" }, name))))
    : null;
  const notes = [];
  if (part.total > rows.length) notes.push(`${rows.length.toLocaleString("en-US")} of ${part.total.toLocaleString("en-US")} rows`);
  if (part.columns > width) notes.push(`${width} of ${part.columns} columns`);
  return el(
    "figure",
    { class: "table" },
    el("div", { class: "scrolls", tabindex: rows.length > 12 ? 0 : undefined }, el("table", {}, head, el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))))),
    notes.length ? el("figcaption", {}, notes.join(", ")) : null,
  );
}

function image(part) {
  // In the page, a large picture has an address of its own.
  if (!/^(data:image\/[a-z+]+;base64,|api\/runs\/[\w\/%.~-]+\/pictures\/\d+$)/.test(part.url || "")) return el("p", { class: "muted" }, "No image");
  return el("figure", {}, el("img", { src: part.url, alt: part.label || "image" }), part.label ? el("figcaption", {}, part.label) : null);
}

function failure(part) {
  return el(
    "section",
    { class: "error", role: "note" },
    el("strong", {}, part.title),
    part.text ? el("p", {}, part.text) : null,
    part.traceback ? el("details", { open: part.title === "The task has failed" }, el("summary", {}, "Traceback"), el("pre", {}, part.traceback)) : null,
  );
}

function progress(part) {
  const done = share(part.value, part.max);
  const number = (value) => (typeof value === "number" ? short(value) : String(value));
  const unit = part.unit ? (part.unit === "%" ? "%" : ` ${part.unit}`) : "";
  return el(
    "div",
    { class: "progress" },
    el("div", { class: "line" },
      el("span", {}, part.label || "Progress"),
      el("span", { class: "muted" }, `${number(part.value)} / ${number(part.max)}${unit}`)),
    el("progress", { max: 1, value: done, "aria-label": part.label || "Progress" }),
    part.details ? el("div", { class: "muted details" }, part.details) : null,
  );
}

function value(part) {
  const theme = /^[a-z][a-z0-9-]*$/i.test(part.theme || "") ? part.theme : "default";
  const shown = typeof part.value === "number" ? short(part.value) : String(part.value ?? "");
  return el(
    "div",
    { class: `value theme-${theme}` },
    part.title ? el("div", { class: "name" }, part.title) : null,
    part.subtitle ? el("div", { class: "muted" }, part.subtitle) : null,
    el("div", { class: "number", title: typeof part.value === "number" ? String(part.value) : undefined }, shown),
    part.change ? el("div", { class: "change" }, part.change) : null,
  );
}

function artifact(part) {
  return el(
    "div",
    { class: "artifact" },
    el("div", { class: "line" }, el("span", {}, part.name || ""), el("span", { class: "muted" }, part.type)),
    el("pre", {}, part.text),
  );
}

function copied(text) {
  const button = el("button", { type: "button", class: "copy", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const field = el("textarea", {}, text);
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } }, "Copy");
  return button;
}

function json(part) {
  let inner;
  if (part.kind === "json" && part.folds) {
    try {
      const room = { left: MOST_NODES };
      inner = el("div", { class: "json" }, node(JSON.parse(part.text), room, 0));
    } catch {
      inner = el("pre", {}, part.text);
    }
  } else inner = el("pre", {}, part.text);
  const height = /^\d+(\.\d+)?(px|rem|em|vh)$/.exec(part.height || "");
  if (height) {
    inner.classList.add("limited");
    inner.style.maxHeight = height[0]; // the script's own change of a style, which the policy allows
  }
  return el(
    "div",
    { class: "artifact" },
    el("div", { class: "line" }, el("span", {}, part.title || ""), part.copies ? copied(part.text) : null),
    inner,
  );
}

function node(given, room, depth) {
  room.left -= 1;
  if (room.left < 0) return el("span", { class: "muted" }, "…");
  if (given === null || typeof given !== "object") {
    const kind = given === null ? "k" : { string: "s", number: "n", boolean: "k" }[typeof given];
    return el("span", { class: `code-${kind}` }, JSON.stringify(given));
  }
  const isList = Array.isArray(given);
  const names = Object.keys(given);
  const [open, close] = isList ? "[]" : "{}";
  if (!names.length) return open + close;
  const count = `${names.length} ${isList ? "item" : "key"}${names.length === 1 ? "" : "s"}`;
  const rows = [];
  for (const name of names) {
    if (room.left < 0) break;
    rows.push(el("div", {}, isList ? null : [el("span", { class: "key" }, name), ": "], node(given[name], room, depth + 1)));
  }
  if (rows.length < names.length) rows.push(el("div", { class: "muted" }, `… ${names.length - rows.length} more`));
  return el("details", { open: depth < 2 && names.length <= 50 }, el("summary", {}, open, el("span", { class: "muted" }, ` ${count} `), close), rows);
}

function timeline(part) {
  const head = [part.title ? el("strong", {}, part.title) : null];
  const facts = [`${short(Number(part.total) || 0)} event${part.total === 1 ? "" : "s"}`];
  if (part.first && part.last && part.last > part.first) facts.push(`${short(Math.round((part.last - part.first) * 10) / 10)} s`);
  if (part.finished) facts.push("finished");
  head.push(el("span", { class: "muted" }, facts.join(" · ")));
  const events = (part.events || []).map((event) => {
    const theme = /^[a-z][a-z0-9_-]*$/i.test(event.theme || "") ? event.theme : "default";
    return el(
      "li",
      { class: `event theme-${theme} priority-${/^[a-z]+$/.test(event.priority || "") ? event.priority : "normal"}` },
      el("time", {}, event.time ? clock(event.time) : ""),
      el("div", {},
        el("dl", {}, event.facts.map(([name, fact]) => el("div", {}, el("dt", {}, name), el("dd", {}, typeof fact === "number" ? short(fact) : fact)))),
        event.payloads.map(([name, inner]) => el("details", {}, el("summary", {}, name), component(inner)))),
    );
  });
  const more = Number(part.total) > events.length ? el("p", { class: "muted" }, `${short(Number(part.total) - events.length)} earlier events are not shown`) : null;
  return el("div", { class: "timeline" }, el("div", { class: "line" }, head), el("ol", {}, events), more);
}

function facts(part) {
  return el("dl", { class: "facts" }, part.rows.map(([name, fact]) => [el("dt", {}, name), el("dd", {}, fact)]));
}

function group(part) {
  return el("div", { class: "group" }, blocks(part.parts || []));
}

function section(part) {
  return el("section", { class: "section" }, el("h2", {}, part.title), blocks(part.parts || []));
}

// --- charts ------------------------------------------------------------------------------------

function vega(part) {
  const place = el("div", { class: "chart" });
  const holder = el("figure", { class: "vega" }, place);
  queueMicrotask(() => chart(place, holder, part));
  return holder;
}

function chartColours(place) {
  const style = getComputedStyle(place);
  const colour = (name) => style.getPropertyValue(name).trim();
  const [text, muted, line] = [colour("--text"), colour("--muted"), colour("--line")];
  return {
    background: null,
    font: style.getPropertyValue("--sans").trim() || "sans-serif",
    title: { color: text },
    style: { "guide-label": { fill: muted }, "guide-title": { fill: text }, cell: { stroke: line } },
    axis: { domainColor: line, gridColor: line, tickColor: line, labelColor: muted, titleColor: text },
    legend: { labelColor: muted, titleColor: text },
    header: { labelColor: muted, titleColor: text },
    view: { stroke: line },
    range: { category: ["#4c78d8", "#e8833a", "#3a9d76", "#c9504f", "#8a63d2", "#b8962c", "#3aa3c2", "#d46aa0"] },
  };
}

async function chart(place, holder, part) {
  const library = globalThis.vega;
  if (!library || !globalThis.vegaLite) {
    place.replaceChildren(el("p", { class: "muted" }, "This chart needs Vega, which is not here."));
    return;
  }
  let isRefused = false;
  const refuse = () => {
    isRefused = true;
    return Promise.reject(new Error("nothing is loaded"));
  };
  try {
    const given = part.spec;
    const schema = String(given.$schema || "");
    const isLite = !/\/vega\/v\d/.test(schema);
    const config = chartColours(place);
    const spec = isLite ? globalThis.vegaLite.compile(given, { config, logger: quiet() }).spec : given;
    const runtime = library.parse(spec, isLite ? undefined : config, { ast: true });
    const view = new library.View(runtime, {
      expr: globalThis.vegaInterpreter?.expressionInterpreter,
      renderer: "svg",
      container: place,
      hover: true,
      loader: { load: refuse, sanitize: refuse, http: refuse, file: refuse, options: {} },
      logLevel: library.Error,
    });
    await view.runAsync();
    if (isRefused) holder.append(el("figcaption", {}, "This chart would load data from elsewhere: a card shows only data within its specification."));
    place.addEventListener("resize", () => view.resize());
    if (part.controls) {
      const save = (kind) => async () => {
        const url = await view.toImageURL(kind, kind === "png" ? 2 : 1);
        el("a", { href: url, download: `chart.${kind}` }).click();
      };
      holder.append(el("figcaption", {}, el("button", { type: "button", onclick: save("png") }, "Save as PNG"), " ", el("button", { type: "button", onclick: save("svg") }, "Save as SVG")));
    }
  } catch (error) {
    place.replaceChildren(failure({ title: "This chart cannot be shown", text: String(error?.message || error) }));
  }
}

function quiet() {
  const log = { level: () => log, warn: () => log, info: () => log, debug: () => log, error: () => log };
  return log;
}

// --- cards -------------------------------------------------------------------------------------

const KINDS = {
  text: (part) => el("p", { class: "text" }, part.text),
  markdown: (part) => el("div", { class: "markdown" }, tree(part.tree)),
  log: (part) => el("pre", { class: "log" }, part.text),
  yaml: json,
  table, image, error: failure, progress, value, artifact, code, json, timeline, facts, group, section, vega,
};

export function component(part) {
  const draws = Object.hasOwn(KINDS, part?.kind) ? KINDS[part.kind] : null;
  try {
    return draws ? draws(part) : el("p", { class: "muted" }, "This part of the card is of a later version.");
  } catch (error) {
    return failure({ title: "This part of the card cannot be shown", text: String(error?.message || error) });
  }
}

// Boxes with values stand side by side; everything else has a line of its own.
function blocks(parts) {
  const drawn = [];
  let row = null;
  for (const part of parts) {
    if (part.kind === "value") {
      if (!row) drawn.push((row = el("div", { class: "row" })));
      row.append(component(part));
    } else {
      row = null;
      drawn.push(component(part));
    }
  }
  return drawn;
}

// Runs of boxes are one block, so that a block that has not changed can stay as it is.
function grouped(parts) {
  const found = [];
  for (const part of parts) {
    const last = found[found.length - 1];
    if (part.kind === "value" && last?.[0].kind === "value") last.push(part);
    else found.push([part]);
  }
  return found;
}

export function drawCard(root, card) {
  const wanted = [];
  if (card.title) wanted.push(["title", card.title]);
  for (const parts of grouped(card.parts || [])) wanted.push(["parts", parts]);
  if (card.html) wanted.push(["html", card.html]);
  if (!wanted.length) wanted.push(["empty", card.status]);
  root.classList.add("asyncflow-card");
  const before = root.asyncflowKeys || [];
  const keys = wanted.map((each) => JSON.stringify(each));
  keys.forEach((key, at) => {
    const old = root.children[at];
    if (old && before[at] === key) return;
    const fresh = block(...wanted[at]);
    if (old) {
      keepOpen(old, fresh);
      old.replaceWith(fresh);
    } else root.append(fresh);
  });
  while (root.children.length > keys.length) root.lastElementChild.remove();
  root.asyncflowKeys = keys;
}

function block(kind, given) {
  if (kind === "title") return el("h1", {}, given);
  if (kind === "html") return frame(given);
  if (kind === "empty") return el("p", { class: "muted" }, given === "running" ? "Nothing is on this card yet." : "Nothing is on this card.");
  return el("div", { class: "block" }, blocks(given));
}

function keepOpen(old, fresh) {
  const were = [...old.querySelectorAll("details")];
  const are = [...fresh.querySelectorAll("details")];
  if (were.length === are.length) are.forEach((each, at) => { each.open = were[at].open; });
}

export function frame(html) {
  const holder = el("iframe", { class: "html", sandbox: "allow-scripts", title: "HTML of the step" });
  holder.srcdoc = html;
  const listen = (event) => {
    if (!holder.isConnected) removeEventListener("message", listen);
    else if (event.source === holder.contentWindow && event.data?.asyncflow === "height") {
      // the script's own change of a style, which the policy allows
      holder.style.height = `${Math.min(Math.max(Number(event.data.height) || 0, 60), 20000)}px`;
    }
  };
  addEventListener("message", listen);
  return holder;
}

// --- in a file or a frame of its own -----------------------------------------------------------

function begin() {
  const root = document.getElementById("card");
  const given = document.getElementById("data");
  if (!root || !given) return;
  const data = JSON.parse(given.textContent || "{}");
  if (data.card) drawCard(root, data.card);
  else if (!data.live) return;
  if (globalThis.parent === globalThis) return;
  addEventListener("message", (event) => {
    if (event.source === parent && event.data?.asyncflow === "card") drawCard(root, event.data.card);
  });
  const tell = () => parent.postMessage({ asyncflow: "height", height: Math.ceil(document.documentElement.getBoundingClientRect().height) }, "*");
  new ResizeObserver(tell).observe(document.documentElement);
  parent.postMessage({ asyncflow: "ready" }, "*");
  tell();
}

if (typeof document !== "undefined") begin();
