// What tasks printed, in its order; live at its end, and searched on the server.

import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./lib.js";
import { get, url, useData } from "./api.js";
import { coloured } from "./colours.js";
import { number, offset } from "./format.js";
import { Choice, Empty, Problem, Search, Waiting } from "./parts.js";
import { address, changed, one } from "./router.js";

const MOST = 500; // lines in the document
const MANY = 100; // lines; of more, each shows fewer colours, so that the document stays small
const LOOKS = { stdout: "", stderr: "err" };

/** A run's log, or that of one `task` of it. `live` is how events come: `live.listen(heard)`. */
export function Log({ route, run, steps = null, task = null, live = null, attempts = 1 }) {
  const query = {
    step: task ? task.step : one(route, "step"),
    task: task?.task_id,
    attempt: task ? one(route, "attempt") : "",
    stream: one(route, "stream"),
    find: one(route, "find"),
  };
  const fromStart = one(route, "at") === "start";
  const after = one(route, "after");
  const path = ["runs", run.flow, run.run_id, "log"];
  const address = url(path, fromStart || query.find ? { ...query, after } : { ...query, tail: 1 });
  const first = useData(address);
  const [more, setMore] = useState({ key: null, lines: [], after: 0, end: true, busy: false });
  const held = more.key === address ? more : null;
  const recent = useRef([]); // lines that have come while the first answer was on its way
  const following = live && !fromStart && !query.find;

  useEffect(() => {
    recent.current = [];
    if (!following) return undefined;
    return live.listen((events) => {
      const lines = events.flatMap((event) => (isWanted(event, query) ? [lineOf(event)] : []));
      if (!lines.length) return;
      recent.current = recent.current.concat(lines).slice(-MOST);
      setMore((old) => (old.key === address ? added(old, lines.filter((line) => line.seq > lastOf(old)), {}) : old));
    });
  }, [live, address, following]);

  useEffect(() => {
    if (!first.data) return;
    const { lines, after: next, end } = first.data;
    const old = { key: address, lines: [], after: next, end, busy: false, dropped: false };
    const since = recent.current.filter((line) => line.seq > next);
    setMore(added(old, following ? [...lines, ...since] : lines, {}));
  }, [first.data]);

  // A search may read for long: the server answers in parts, and the page asks on until it has some.
  useEffect(() => {
    if (!held || held.end || held.busy || !query.find || held.lines.length >= 200) return;
    void readOn();
  }, [held?.after]);

  const readOn = async () => {
    setMore((old) => ({ ...old, busy: true }));
    try {
      const data = await get(url(path, { ...query, after: held.after }));
      setMore((old) => (old.key === address ? added(old, data.lines, data) : old));
    } catch (error) {
      setMore((old) => ({ ...old, busy: false, end: true, error }));
    }
  };


  const choices = [["", "All steps"], ...(steps ?? []).map((step) => [step.step, step.step])];
  const lines = held?.lines ?? [];
  return html`<div class="stack">
    <div class="row filters">
      <${Search} route=${route} label="Search the log" hint="Search the log" />
      ${steps && html`<${Choice} route=${route} name="step" label="Step" choices=${choices} />`}
      ${task && attempts > 1 && html`<${Choice} route=${route} name="attempt" label="Attempt" choices=${[["", "All attempts"], ...Array.from({ length: attempts }, (_, n) => [String(n), `Attempt ${n}`])]} />`}
      <${Choice} route=${route} name="stream" label="Stream" choices=${[["", "Both streams"], ["stdout", "stdout"], ["stderr", "stderr"]]} />
      ${!query.find && html`<${Choice} route=${route} name="at" label="Which part" choices=${[["", "Latest lines"], ["start", "From the start"]]} />`}
    </div>
    <${Problem} error=${first.error ?? held?.error} retry=${first.reload} />
    ${held
      ? html`<section class="panel" aria-label="Log">
          ${lines.length ? html`<${Lines} lines=${lines} find=${query.find} run=${run} alone=${task !== null} follow=${following} />` : html`<${Nothing} find=${query.find} held=${held} going=${run.status === "running"} />`}
        </section>
        <footer class="paging">
          <span class="muted small" role="status">${statusText(held, query.find, first.data)}</span>
          <span class="grow"></span>
          ${held.dropped && html`<a class="button" href=${changed(route, { at: "start", after: null })}>From the start</a>`}
          ${!held.end && html`<button type="button" onClick=${readOn} disabled=${held.busy}>${held.busy ? "Reading …" : "More lines"}</button>`}
        </footer>`
      : !first.error && html`<${Waiting} />`}
  </div>`;
}

function statusText(held, find, data) {
  const shown = `${number(held.lines.length)} line${held.lines.length === 1 ? "" : "s"}`;
  if (!find) return held.dropped ? `The latest ${shown}` : shown;
  if (held.busy) return `${shown} found so far …`;
  return held.end ? `${shown} found` : `${shown} found, ${number(data?.searched ?? 0)} searched: there may be more`;
}

function Nothing({ find, held, going }) {
  if (held.busy || (find && !held.end)) return html`<${Empty} title="Searching …" />`;
  return html`<${Empty} title=${find ? "No line has this text" : going ? "Nothing has been printed yet" : "Nothing was printed"} />`;
}

function added(old, lines, data) {
  const all = [...old.lines, ...lines];
  return {
    ...old,
    lines: all.slice(-MOST),
    dropped: old.dropped || all.length > MOST,
    after: data.after ?? old.after,
    end: data.end ?? old.end,
    busy: false,
  };
}

function lastOf(held) {
  return Math.max(held.after, held.lines.length ? held.lines[held.lines.length - 1].seq : 0);
}

function isWanted(event, query) {
  if (event.type !== "TaskLogged") return false;
  if (query.step && event.step !== query.step) return false;
  if (query.task && event.task_id !== query.task) return false;
  if (query.attempt !== "" && String(event.attempt) !== query.attempt) return false;
  return !query.stream || event.stream === query.stream;
}

function lineOf(event) {
  const { seq, time, at, step, task_id, attempt, stream } = event;
  return { seq, time, at, step, task_id, attempt, stream, text: event.line, cut: event.line_cut ?? false };
}

/** Lines in groups: who printed stands once beside what it printed in a row. */
function Lines({ lines, find, run, alone, follow }) {
  const groups = useMemo(() => grouped(lines), [lines]);
  const most = lines.length > MANY ? 3 : 16;
  const wasAtEnd = useRef(true);
  const box = useRef(null);
  const look = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    wasAtEnd.current = scrollHeight - scrollTop - clientHeight < 40;
  };
  useLayoutEffect(() => {
    if (follow && wasAtEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines]);
  return html`<div class="log" ref=${box} onScroll=${look} tabindex="0" role="log" aria-live="off" aria-label="Lines">
    ${groups.map((group) => html`<${Group} group=${group} find=${find} run=${run} alone=${alone} most=${most} key=${group.seq} />`)}
  </div>`;
}

function Group({ group, find, run, alone, most }) {
  // The same element again is not compared: a log may have a thousand lines, and get more each moment.
  return useMemo(
    () => html`<div class=${`log-group ${alone ? "alone" : ""}`}>
      ${group.task ? html`<a class="who cut" href=${address(["runs", run.flow, run.run_id, group.step, group.task])} title=${group.time}>
        ${alone ? offset(group.at) : `${group.step}/${group.task}`}${group.attempt ? ` · attempt ${group.attempt}` : ""}
      </a>` : html`<span class="who cut" title=${group.time}>the run</span>`}
      ${group.lines.map(
        (line) => html`<div class=${LOOKS[line.stream] ?? "note"} title=${offset(line.at)} key=${line.seq}>
          ${shownAs(line.text, find, most)}${line.cut ? " … (cut)" : ""}
        </div>`,
      )}
    </div>`,
    [group.seq, group.lines.length, find, alone, most],
  );
}

function grouped(lines) {
  const groups = [];
  for (const line of lines) {
    const last = groups[groups.length - 1];
    if (last && last.step === line.step && last.task === line.task_id && last.attempt === line.attempt) {
      last.lines.push(line);
    } else {
      groups.push({ seq: line.seq, step: line.step, task: line.task_id, attempt: line.attempt, at: line.at, time: line.time, lines: [line] });
    }
  }
  return groups;
}

/** A line in its colours. */
function shownAs(text, find, most) {
  const parts = coloured(text, most);
  if (!parts.length) return marked("", find);
  return parts.map(([part, names, colour]) =>
    names || colour ? html`<span class=${names} style=${colour ? { color: colour } : undefined}>${marked(part, find)}</span>` : marked(part, find),
  );
}

/** A text with each place that matches the search in a `mark`. */
export function marked(text, find) {
  if (!text) return "\u200b"; // an empty line is as high as others
  if (!find) return text;
  const low = text.toLowerCase();
  const wanted = find.toLowerCase();
  const parts = [];
  let from = 0;
  for (let at = low.indexOf(wanted); at >= 0 && parts.length < 20; at = low.indexOf(wanted, from)) {
    parts.push(text.slice(from, at), html`<mark>${text.slice(at, at + wanted.length)}</mark>`);
    from = at + wanted.length;
  }
  return [...parts, text.slice(from)];
}
