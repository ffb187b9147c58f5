// The runs of a store: grouped by flow, chosen by what the address says, and live.

import { html, useEffect, useMemo, useRef, useState } from "./lib.js";
import { StartForm, useMay } from "./actions.js";
import { url, useCalm, useData, useNow, Watch } from "./api.js";
import { ago, duration, many, moment, number, soFar } from "./format.js";
import { Advice, Chips, Choice, Empty, Icon, Paging, Problem, Progress, Search, State, Waiting } from "./parts.js";
import { address, addressOf, all, changed, go, one } from "./router.js";
import { FlowTrend, Line, useDurations } from "./trend.js";

const STATUSES = ["running", "failed", "interrupted", "succeeded", "cancelled"];
const IN_GROUP = 8; // runs of a flow that are shown among others

const AGES = [
  ["", "Any time"],
  ["1h", "The last hour"],
  ["24h", "The last day"],
  ["7d", "The last week"],
  ["30d", "The last month"],
];

/** The view of `#/runs`. */
export function RunsView({ route, tell }) {
  const query = {
    flow: one(route, "flow"),
    status: all(route, "status"),
    tag: all(route, "tag"),
    since: one(route, "since"),
    before: one(route, "before"),
    text: one(route, "text"),
    after: one(route, "after"),
  };
  const { data, error, busy, reload } = useData(url(["runs"], { ...query, limit: 100 }), "runs");
  const runs = useLiveRows(data, query, reload, tell);
  const flows = data?.flows ?? [];
  const grouped = !query.flow && one(route, "group") !== "no";
  const names = flows.map(({ flow, runs: count }) => [flow, `${flow} (${number(count)})`]);
  if (query.flow && !flows.some(({ flow }) => flow === query.flow)) names.push([query.flow, query.flow]);
  const filtered = query.status.length || query.tag.length || query.since || query.before || query.text;
  return html`<div class="stack">
    <div class="row filters">
      <${Search} route=${route} name="text" label="Search runs by flow, id, tag, user or parameter" hint="Search runs" />
      <${Choice} route=${route} name="flow" label="Flow" choices=${[["", "All flows"], ...names]} />
      <${Choice} route=${route} name="since" label="Started within" choices=${withAsked(AGES, query.since)} />
      <${Chips} route=${route} name="status" label="Status" choices=${STATUSES.map((state) => [state, html`<${State} state=${state} size=${13} />`])} />
      ${query.tag.map((tag) => html`<a class="tag chosen" href=${changed(route, { tag: query.tag.filter((each) => each !== tag), after: null })} title="Do not ask for this tag" key=${tag}><span class="cut">${tag}</span><${Icon} name="close" size=${10} label="remove" /></a>`)}
      <span class="grow"></span>
      ${!query.flow && flows.length > 1 && html`<a class="chip" href=${changed(route, { group: grouped ? "no" : null })}>${grouped ? "Do not group" : "Group by flow"}</a>`}
    </div>
    <${Problem} error=${error} retry=${reload} />
    ${data?.unreadable?.length > 0 && html`<details class="notice warning unreadable"><summary>${many(data.unreadable.length, "thing")} cannot be read</summary><ul>${data.unreadable.map((text) => html`<li key=${text}>${text}</li>`)}</ul></details>`}
    ${!data ? !error && html`<${Waiting} />` : html`<div aria-busy=${String(busy)} class="stack">
      ${query.flow && html`<${FlowHead} flow=${query.flow} count=${flows.find(({ flow }) => flow === query.flow)?.runs} route=${route} />`}
      ${runs.length ? (grouped ? html`<${Groups} route=${route} runs=${runs} flows=${flows} filtered=${filtered} />` : html`<section class="panel" aria-label="Runs"><${Rows} runs=${runs} showFlow=${!query.flow} /></section>`) : html`<section class="panel"><${Nothing} route=${route} filtered=${filtered} any=${flows.length > 0} /></section>`}
      <${Paging} route=${route} next=${data.next} />
    </div>`}
    ${one(route, "do") === "run" && query.flow && html`<${StartForm} flow=${query.flow} close=${() => go(changed(route, { do: null }))} />`}
  </div>`;
}

function withAsked(ages, asked) {
  return asked && !ages.some(([age]) => age === asked) ? [...ages, [asked, `Since ${asked}`]] : ages;
}

function Nothing({ route, filtered, any }) {
  if (filtered) {
    return html`<${Empty} title="No run is like that"><a href=${address(route.parts, { flow: route.query.flow })}>Show all runs</a><//>`;
  }
  return html`<${Empty} title=${any ? "No runs" : "No runs yet"}>
    Runs appear here as they start, for example with <code>asyncflow run my_flow.py</code>.
  <//>`;
}

/** The rows as they are now: changes come by server-sent events. */
function useLiveRows(data, query, reload, tell) {
  const [news, setNews] = useState(new Map());
  const again = useCalm(reload, 1500);
  const known = useRef(new Set());
  known.current = new Set((data?.runs ?? []).map((run) => run.pathspec));
  useEffect(() => setNews(new Map()), [data]);
  // A flow that has no run yet cannot be watched alone.
  const flow = data?.flows.some((each) => each.flow === query.flow) ? query.flow : "";
  const ready = data !== null;
  useEffect(() => {
    if (!ready) return undefined;
    const watch = new Watch((since) => url(["watch"], { flow, since }), {
      heard: ({ runs, removed }) => {
        const rows = (runs ?? []).filter((run) => !query.flow || run.flow === query.flow);
        const fresh = rows.some((run) => !known.current.has(run.pathspec));
        setNews((old) => {
          const next = new Map(old);
          for (const run of rows) if (known.current.has(run.pathspec)) next.set(run.pathspec, run);
          return next;
        });
        if (fresh || removed?.length) again();
      },
      changed: tell,
    });
    return () => watch.close();
  }, [query.flow, flow, ready]);
  return useMemo(() => (data?.runs ?? []).map((run) => news.get(run.pathspec) ?? run), [data, news]);
}

function Groups({ route, runs, flows, filtered }) {
  const groups = new Map();
  for (const run of runs) {
    if (!groups.has(run.flow)) groups.set(run.flow, []);
    groups.get(run.flow).push(run);
  }
  const counts = new Map(flows.map(({ flow, runs: count }) => [flow, count]));
  const shown = [...groups].slice(0, 40);
  const room = Math.max(2, Math.min(IN_GROUP, Math.floor(90 / shown.length)));
  return shown.map(([flow, members]) => {
    const rows = groups.size > 1 ? members.slice(0, room) : members;
    const left = (filtered ? members.length : (counts.get(flow) ?? members.length)) - rows.length;
    return html`<section class="panel group" aria-label=${flow} key=${flow}>
      <header>
        <h2><a href=${changed(route, { flow, after: null })}>${flow}</a></h2>
        <span class="muted small">${counts.has(flow) ? many(counts.get(flow), "run") : ""}</span>
        <${FlowTrend} flow=${flow} />
      </header>
      <${Rows} runs=${rows} />
      ${left > 0 && html`<a class="more" href=${changed(route, { flow, after: null })}>${number(left)} more</a>`}
    </section>`;
  });
}

function FlowHead({ flow, count, route }) {
  const durations = useDurations(flow);
  const may = useMay("run");
  const points = durations?.runs.map((run) => [run.seconds, run.status]) ?? [];
  return html`<header class="head flow-head">
    <div class="row">
      <h1 class="cut">${flow}</h1>
      <span class="muted">${count === undefined ? "" : many(count, "run")}</span>
      <span class="grow"></span>
      ${may && html`<a class="button primary" href=${changed(route, { do: "run" })} data-do="run"><${Icon} name="play" size=${11} />Run …</a>`}
    </div>
    ${durations?.runs.length > 1 && html`<section class="panel trends" aria-label="How long the latest runs took">
      <figure><figcaption>Whole runs</figcaption><${Line} points=${points} width=${190} height=${44} /></figure>
      ${durations.steps.slice(0, 12).map((step) => html`<figure key=${step}>
        <figcaption class="cut">${step}</figcaption>
        <${Line} points=${durations.runs.map((run) => [run.steps[step] ?? null, run.status])} width=${130} height=${44} />
      </figure>`)}
    </section>`}
  </header>`;
}

function Rows({ runs, showFlow = false }) {
  const anyRuns = runs.some((run) => run.status === "running");
  const now = useNow(anyRuns ? 1000 : 30000);
  return html`<ul class="runs">
    ${runs.map((run) => html`<${Row} run=${run} now=${now} showFlow=${showFlow} key=${run.pathspec} />`)}
  </ul>`;
}

function Row({ run, now, showFlow }) {
  const running = run.status === "running";
  const unreadable = run.status === "unreadable";
  const took = running ? soFar((now - Date.parse(run.created_at)) / 1000) : duration(run.seconds ?? run.so_far);
  const steps = run.current_steps ?? [];
  const resumed = run.resumed_as?.length > 0;
  return html`<li>
    <a class="run-row" href=${addressOf(run.pathspec)} data-row data-run=${run.run_id} data-status=${run.status}>
      <span class="who cut"><${State} state=${run.status} bare /> ${showFlow ? html`<b>${run.flow}</b> ` : ""}<span class="mono">${run.run_id}</span></span>
      <span class="what cut">${unreadable ? "cannot be read" : running ? steps.join(", ") : resumed ? "was resumed" : run.status === "succeeded" ? "" : run.status}</span>
      <span class="how">${unreadable ? "" : html`<${Progress} ...${partsOfRow(run)} /><span class="small muted nowrap">${progressText(run)}</span>`}</span>
      <span class="tags cut muted small">${(run.tags ?? []).join(" · ")}</span>
      <span class="took right nowrap">${took}</span>
      <span class="when right muted nowrap" title=${moment(run.created_at)}>${ago(run.created_at, now)}</span>
    </a>
    ${unreadable && html`<div class="padded stack tight"><p class="small why">${run.message}</p>${run.do && html`<${Advice} text=${run.do} />`}</div>`}
  </li>`;
}

function partsOfRow(run) {
  const done = run.done ?? 0;
  return { done, failed: run.failed ?? 0, running: run.running ?? 0, total: run.total ?? done, open: isOpen(run) };
}

/** Whether nobody can know yet how many tasks there will be. */
function isOpen(run) {
  return run.total === null && run.status === "running";
}

function progressText(run) {
  if (run.done === null || run.done === undefined) return "";
  const total = isOpen(run) ? " / ?" : run.total === null ? "" : ` / ${number(run.total)}`;
  return `${number(run.done)}${total}${run.failed ? ` · ${number(run.failed)} failed` : ""}`;
}
