// When each task ran. Drag or Ctrl and the wheel to look closer, Shift and the wheel to move, click to
// open a task, Esc or 0 to see all again.

import { html, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./lib.js";
import { url, useData } from "./api.js";
import { duration, many, number, offset } from "./format.js";
import { useNarrow } from "./graph.js";
import { Choice, Problem, State, Waiting } from "./parts.js";
import { address, changed, go, one } from "./router.js";
import { arrange, AXIS, draw, foundAt } from "./timeline_draw.js";

/** The tab of a run. `version` goes up when the run has changed. */
export function Timeline({ route, run, steps, version }) {
  const frame = useRef(null);
  const width = useWidth(frame);
  const narrow = useNarrow(640);
  const [from, to] = [one(route, "from"), one(route, "to")];
  const query = {
    from,
    to,
    px: Math.min(2000, Math.max(50, Math.round(width - (narrow ? 12 : 152)))),
    step: one(route, "step"),
    attempts: one(route, "attempts") === "last" ? "last" : "",
    idle: one(route, "idle", "cut") === "cut" ? "cut" : "",
  };
  const path = ["runs", run.flow, run.run_id, "timeline"];
  const { data, error, reload } = useData(width ? url(path, query) : null, run.pathspec);
  useEffect(() => {
    if (version) reload();
  }, [version]);
  const choices = [["", "All steps"], ...steps.map((step) => [step.step, step.step])];
  return html`<div class="stack">
    <div class="row">
      <${Choice} route=${route} name="step" label="Step" choices=${choices} />
      <${Choice} route=${route} name="attempts" label="Attempts" choices=${[["", "All attempts"], ["last", "Last attempts"]]} />
      <${Choice} route=${route} name="idle" label="Idle times" otherwise="cut" choices=${[["cut", "Idle times cut out"], ["keep", "Idle times kept"]]} />
      <span class="grow"></span>
      ${(from || to) && html`<a class="button" href=${changed(route, { from: null, to: null })}>See all</a>`}
    </div>
    <${Problem} error=${error} retry=${reload} />
    <section class="panel timeline" ref=${frame} aria-label="Timeline">
      ${data && width ? html`<${Drawing} route=${route} run=${run} data=${data} width=${width} named=${narrow ? 0 : 140} />` : !error && html`<${Waiting} />`}
    </section>
    ${data && html`<p class="muted small legend">
      ${data.bars
        ? html`${many(data.attempts, "attempt")} <${State} state="succeeded" /><${State} state="failed" /><${State} state="running" />`
        : html`${many(data.attempts, "attempt")}: too many for bars, so the height is how many ran at a time; ▾ marks failures.`}
      <span class="hint">Drag or turn the wheel with Ctrl to look closer, with Shift to move. Click a bar to open its task.</span>
    </p>`}
  </div>`;
}

function Drawing({ route, run, data, width, named }) {
  const canvas = useRef(null);
  const shape = useMemo(() => arrange(data, width, named), [data, width, named]);
  const [selection, setSelection] = useState(null);
  const [hot, setHot] = useState(null);
  const scheme = useScheme();
  useLayoutEffect(() => {
    draw(canvas.current, data, shape, { selection, hot: hot?.bar });
  }, [data, shape, selection, hot?.bar, scheme]);

  const zoom = useCallback(
    (from, to, how) => {
      const least = Math.max(Math.round(to - from), 2);
      const begin = Math.max(0, Math.round(from));
      go(changed(route, { from: begin, to: begin + least }), how);
    },
    [route],
  );
  const turned = useRef({ timer: 0, from: 0, to: 0 });
  useEffect(() => () => clearTimeout(turned.current.timer), []);
  // A wheel turns many times in a moment: where it has come to is asked for when it rests.
  const wheel = (event) => {
    if (!(event.ctrlKey || event.metaKey || event.shiftKey)) return; // the page scrolls
    event.preventDefault();
    const held = turned.current;
    if (!held.timer) Object.assign(held, { from: data.from, to: data.to });
    const span = held.to - held.from;
    const steps = Math.max(-1, Math.min(1, (event.deltaY || event.deltaX) / 100));
    if (event.shiftKey && !event.ctrlKey) {
      const by = Math.max(steps * span * 0.2, -held.from);
      Object.assign(held, { from: held.from + by, to: held.to + by });
    } else {
      const [x] = place(event);
      const share = Math.min(Math.max((x - shape.left) / Math.max(shape.width - shape.left - 12, 1), 0), 1);
      const wide = Math.max(span * 1.25 ** (4 * steps), 2);
      const at = held.from + share * span;
      Object.assign(held, { from: Math.max(0, at - share * wide), to: Math.max(0, at - share * wide) + wide });
    }
    clearTimeout(held.timer);
    held.timer = setTimeout(() => {
      held.timer = 0;
      zoom(held.from, held.to, { replace: Boolean(one(route, "from")) });
    }, 120);
  };
  const place = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const down = (event) => {
    if (event.button !== 0) return;
    const [x] = place(event);
    if (x >= shape.left) setSelection([x, x]);
    canvas.current.setPointerCapture(event.pointerId);
  };
  const move = (event) => {
    const [x, y] = place(event);
    if (selection) {
      setSelection([selection[0], Math.min(Math.max(x, shape.left), shape.width - 12)]);
      return;
    }
    const found = foundAt(data, shape, x, y);
    setHot(found ? { ...found, x, y } : null);
  };
  const up = (event) => {
    const [x, y] = place(event);
    const chosen = selection;
    setSelection(null);
    if (chosen && Math.abs(chosen[1] - chosen[0]) > 5) {
      const [a, b] = [Math.min(...chosen), Math.max(...chosen)].map((each) => shape.scale.time(each - shape.left));
      zoom(a, b);
      return;
    }
    const found = foundAt(data, shape, x, y);
    if (found?.bar) go(address(["runs", run.flow, run.run_id, found.step, String(found.bar[0])]));
    else if (found && y > AXIS && !data.bars) go(changed(route, { step: found.step, view: "tasks", from: null, to: null }));
  };
  const keys = (event) => {
    // What the address asks for, which may be on its way still.
    const from = Number(one(route, "from") || data.from);
    const to = Number(one(route, "to") || data.to);
    const span = to - from;
    const act = {
      "+": () => zoom(from + span * 0.2, to - span * 0.2),
      "=": () => zoom(from + span * 0.2, to - span * 0.2),
      "-": () => zoom(Math.max(0, from - span * 0.3), to + span * 0.3),
      0: () => go(changed(route, { from: null, to: null })),
      ArrowLeft: () => zoom(Math.max(0, from - span * 0.2), Math.max(0, from - span * 0.2) + span),
      ArrowRight: () => zoom(from + span * 0.2, to + span * 0.2),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  };
  const label = `Timeline from ${offset(data.from)} to ${offset(data.to)}, ${many(data.attempts, "attempt")}. Arrow keys move, plus and minus zoom, 0 shows all.`;
  return html`<div class="drawing">
    <canvas
      ref=${canvas}
      style=${`width:${shape.width}px;height:${shape.height}px`}
      class=${hot?.bar ? "on-bar" : ""}
      tabindex="0"
      role="img"
      aria-label=${label}
      onPointerDown=${down}
      onPointerMove=${move}
      onPointerUp=${up}
      onPointerLeave=${() => setHot(null)}
      onDblClick=${() => go(changed(route, { from: null, to: null }))}
      onKeyDown=${keys}
      onWheel=${wheel}
    ></canvas>
    ${hot && !selection && html`<${Tip} hot=${hot} width=${width} now=${data.now} />`}
  </div>`;
}

function Tip({ hot, width, now }) {
  const left = Math.min(hot.x + 14, width - 250);
  const style = `left:${Math.max(left, 4)}px;top:${hot.y + 16}px`;
  if (!hot.bar) {
    return html`<div class="tip" style=${style}>
      <strong>${hot.step}</strong> at ${hot.at}<br />${number(hot.running)} running${hot.failed ? `, ${number(hot.failed)} failed` : ""}
    </div>`;
  }
  const [task, , attempt, from, to, status, index] = hot.bar;
  return html`<div class="tip" style=${style}>
    <strong>${hot.step}/${task}</strong>${index >= 0 ? ` [${index}]` : ""}${attempt ? `, attempt ${attempt}` : ""}<br />
    <${State} state=${status} /> · ${duration(((to ?? now) - from) / 1000)}<br />
    <span class="muted">from ${offset(from)}${to === null ? "" : ` to ${offset(to)}`}</span>
  </div>`;
}

/** The width of an element, anew when it changes; 0 before it is known. */
export function useWidth(ref) {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return width;
}

function useScheme() {
  const list = useMemo(() => matchMedia("(prefers-color-scheme: dark)"), []);
  const [dark, setDark] = useState(list.matches);
  useEffect(() => {
    const look = () => setDark(list.matches);
    list.addEventListener("change", look);
    return () => list.removeEventListener("change", look);
  }, [list]);
  return dark;
}
