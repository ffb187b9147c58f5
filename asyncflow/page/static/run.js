// One run: how it stands, what to do, and its tabs.

import { html, useEffect, useMemo } from "./lib.js";
import { RunButtons, RunDialog, useMay } from "./actions.js";
import { useNow } from "./api.js";
import { Code } from "./code.js";
import { Events } from "./events.js";
import { ago, duration, many, moment, number, offset, soFar } from "./format.js";
import { Graph } from "./graph.js";
import { useRun } from "./live.js";
import { Log } from "./log.js";
import { Advice, Command, Icon, Problem, Progress, State, Tabs, Waiting } from "./parts.js";
import { address, addressOf, changed, one } from "./router.js";
import { partsOf, stateOf, sumOf } from "./steps.js";
import { Failure, TaskView } from "./task.js";
import { Tasks } from "./tasks.js";
import { Timeline } from "./timeline.js";
import { StepTrend, useDurations } from "./trend.js";

/** The events that a view shows as they come. */
function wishOf({ parts, query }) {
  const [, , , step, task] = parts;
  const lines = one({ query }, "view") === "log" ? ["TaskLogged"] : [];
  return task ? { type: ["CardUpdated", ...lines], step, task } : { type: lines };
}

/** The view of `#/runs/FLOW/RUN`, and of a step or task below it. */
export function RunView({ route, tell }) {
  const [, flow, id, step, task] = route.parts;
  const { data, error, reload, steps, version, link, live } = useRun(flow, id, wishOf(route));
  useEffect(() => tell(link), [link]);
  if (!data) return error ? html`<${Problem} error=${error} retry=${reload} />` : html`<${Waiting} />`;
  const run = data.run ?? { flow, run_id: id, pathspec: `${flow}/${id}`, status: "unreadable", tags: [] };
  if (task) {
    return html`<${TaskView} route=${route} run=${run} live=${live} version=${version} key=${`${step}/${task}`} />`;
  }
  const asked = step ? { ...route, query: { ...route.query, view: ["tasks"], step: [step] } } : route;
  const view = one(asked, "view", "overview");
  const failed = steps.reduce((all, each) => all + each.failed, 0);
  const begun = steps.reduce((all, each) => all + each.begun + each.cloned, 0);
  const tabs = [
    ["overview", "Overview"],
    ["timeline", "Timeline"],
    ["tasks", "Tasks", failed || begun, failed > 0],
    ["log", "Log"],
    ["events", "Events"],
    ["code", "Code"],
  ];
  const common = { route: asked, run, steps, version, live };
  return html`<div class="stack">
    <${Head} route=${route} run=${run} steps=${steps} />
    <${Problem} error=${error} retry=${reload} />
    <${WhatNow} data=${data} run=${run} />
    <${Tabs} route=${{ parts: ["runs", flow, id] }} name="view" tabs=${tabs} current=${view} label="Views of the run" />
    ${view === "overview" && html`<${Overview} ...${common} data=${data} />`}
    ${view === "timeline" && html`<${Timeline} ...${common} />`}
    ${view === "tasks" && html`<${Tasks} ...${common} />`}
    ${view === "log" && html`<${Log} ...${common} />`}
    ${view === "events" && html`<${Events} ...${common} />`}
    ${view === "code" && html`<${Code} ...${common} />`}
    <${RunDialog} route=${route} run=${run} graph=${data.graph} reload=${reload} />
  </div>`;
}

function Head({ route, run, steps }) {
  const running = run.status === "running";
  const now = useNow(running ? 1000 : 30000);
  const sum = useMemo(() => sumOf(steps), [steps]);
  const mayTag = useMay("tags");
  const took = running ? soFar((now - Date.parse(run.created_at)) / 1000) : duration(run.seconds ?? run.so_far);
  const parameters = Object.entries(run.parameters ?? {});
  return html`<header class="head">
    <div class="row top-row">
      <h1 class="cut"><a href=${address(["runs"], { flow: run.flow })}>${run.flow}</a> <span class="muted mono id">${run.run_id}</span></h1>
      <span class="big-state" data-status=${run.status} role="status"><${State} state=${run.status} size=${18} /></span>
      <span class="grow"></span>
      <${RunButtons} route=${route} run=${run} />
    </div>
    <p class="muted meta">
      <span title=${moment(run.created_at)}>${ago(run.created_at, now)}</span>
      ${(running || run.seconds !== null) && html`<span>${running ? "for" : "took"} <b>${took}</b></span>`}
      ${run.user && html`<span>by ${run.user}${run.host ? ` on ${run.host}` : ""}</span>`}
      ${run.origin_run_id && html`<span>resumes <a href=${addressOf(`${run.flow}/${run.origin_run_id}`)}>${run.origin_run_id}</a></span>`}
      ${(run.resumed_as ?? []).slice(-1).map((later) => html`<span key=${later}>resumed as <a href=${addressOf(`${run.flow}/${later}`)}>${later}</a></span>`)}
      ${run.versions?.python && html`<span class="wide-only">Python ${run.versions.python}</span>`}
      ${run.key && html`<span>key <code>${run.key}</code></span>`}
    </p>
    <div class="row">
      ${(run.tags ?? []).map((tag) => html`<a class="tag" href=${address(["runs"], { tag })} key=${tag}><span class="cut">${tag}</span></a>`)}
      ${mayTag && html`<a class="button plain small" href=${changed(route, { do: "tags" })} data-do="tags"><${Icon} name="edit" size=${13} />${run.tags?.length ? "" : "Add tags"}<span class="visually-hidden">${run.tags?.length ? "Change the tags" : ""}</span></a>`}
      ${parameters.length > 0 && html`<${Parameters} parameters=${parameters} />`}
    </div>
    ${sum.total > 0 && html`<div class="row whole">
      <${Progress} ...${sum} />
      <span class="nowrap"><b>${number(sum.done + sum.taken)}</b> <span class="muted">of ${number(sum.total)} tasks</span></span>
      ${sum.failed > 0 && html`<span class="nowrap is-failed">${number(sum.failed)} failed</span>`}
      ${sum.running > 0 && running && html`<span class="nowrap is-running">${number(sum.running)} running</span>`}
      ${sum.taken > 0 && html`<span class="nowrap muted">${number(sum.taken)} taken over</span>`}
    </div>`}
  </header>`;
}

const SHOWN_PARAMETERS = 6;

function Parameters({ parameters }) {
  const shown = parameters.slice(0, SHOWN_PARAMETERS);
  return html`<span class="parameters">
    ${shown.map(([name, value]) => html`<span class="parameter" title=${`${name} = ${value}`} key=${name}><span class="muted">${name}</span> <code>${value}</code></span>`)}
    ${parameters.length > shown.length && html`<details class="more"><summary>${parameters.length - shown.length} more</summary>
      <dl class="facts">${parameters.slice(SHOWN_PARAMETERS).map(([name, value]) => html`<dt key=${name}>${name}</dt><dd><code>${value}</code></dd>`)}</dl>
    </details>`}
  </span>`;
}

/** What went wrong, what the run waits for, and what to do now. */
function WhatNow({ data, run }) {
  const { what_now: what, problem, waits } = data;
  const kind = { failed: "failed", interrupted: "warning", unreadable: "failed" }[run.status] ?? "";
  const icon = { failed: "fail", interrupted: "warn", cancelled: "stop", unreadable: "fail", running: "wait" }[run.status] ?? "wait";
  return html`
    ${problem && html`<div class="notice failed" role="alert"><${Icon} name="fail" /><div class="stack tight">
      <strong>${problem.message}</strong>${problem.do && html`<${Advice} text=${problem.do} />`}
    </div></div>`}
    ${what?.text && (what.command || !["succeeded", "running"].includes(run.status)) && html`<div class=${`notice ${kind}`}><${Icon} name=${icon} /><div class="stack tight">
      <p>${what.text}</p>${what.command && html`<${Command} text=${what.command} />`}
    </div></div>`}
    ${waits?.length > 0 && html`<div class="notice running"><${Icon} name="wait" /><ul class="waits">
      ${waits.map((wait) => html`<li key=${wait.text}>${wait.text.replace(/(\d),(?=\d{3}\b)/g, "$1\u202f")}</li>`)}
    </ul></div>`}
  `;
}

function Overview({ route, run, steps, data }) {
  const durations = useDurations(run.flow);
  const href = (step) => addressOf(run.pathspec, { view: "tasks", step });
  const critical = data.critical?.path ?? [];
  const failure = run.failure;
  return html`<div class="stack">
    ${failure && html`<${Failure} failure=${failure} title=${html`<b>${failure.step}${failure.task_id ? `/${failure.task_id}` : ""}</b> <span class="wide">${failure.type}: ${String(failure.message).split("\n", 1)[0]}</span>`} where=${failure.pathspec ? addressOf(failure.pathspec) : null} />`}
    ${data.graph && html`<section class="panel" aria-label="Graph"><${Graph} graph=${data.graph} steps=${steps} href=${href} critical=${critical.map((each) => each.step)} /></section>`}
    <div class="two">
      ${steps.length > 0 && html`<section class="panel">
        <header><h2>Steps</h2></header>
        <div class="scroll-x"><table class="steps">
          <thead><tr><th>Step</th><th>Tasks</th><th class="right">Took</th><th class="right wide-only">Work</th><th class="wide-only">Over runs</th></tr></thead>
          <tbody>${steps.map((step) => html`<${StepRow} step=${step} href=${href(step.step)} durations=${durations} key=${step.step} />`)}</tbody>
        </table></div>
      </section>`}
      <${Critical} run=${run} critical=${data.critical} />
    </div>
  </div>`;
}

function StepRow({ step, href, durations }) {
  const state = stateOf(step);
  const done = step.succeeded + step.cloned;
  const wall = step.first !== null && step.last !== null && step.first !== undefined ? (step.last - step.first) / 1000 : null;
  const extra = [
    step.failed && `${number(step.failed)} failed`,
    step.retried && `${number(step.retried)} tried again`,
    step.caught && `${number(step.caught)} caught`,
    step.running && `${number(step.running)} running`,
    step.waiting && `${number(step.waiting)} waiting`,
  ].filter(Boolean);
  return html`<tr>
    <td><a class="state-link" href=${href} data-row><${State} state=${state} bare /><b class="cut">${step.step}</b></a></td>
    <td class="step-tasks"><div>
      <${Progress} ...${partsOf(step)} />
      <span class="small muted">${number(done)}${step.expected === null ? "" : ` / ${number(step.expected)}`}${extra.length ? ` · ${extra.join(", ")}` : ""}</span>
    </div></td>
    <td class="right nowrap">${duration(wall)}</td>
    <td class="right nowrap muted wide-only">${work(step)}</td>
    <td class="wide-only"><${StepTrend} durations=${durations} step=${step.step} /></td>
  </tr>`;
}

/** How long a step's tasks took in all, of those that have ended. */
function work(step) {
  const ended = step.succeeded + step.failed + step.caught + step.retried + step.cancelled;
  if (!ended) return "–";
  return `${duration(step.seconds)}${step.running && step.seconds !== null ? " so far" : ""}`;
}

const SHOWN_CHAIN = 14;

function Critical({ run, critical }) {
  if (!critical?.path?.length) return null;
  const chain = critical.path.slice(-SHOWN_CHAIN);
  const span = chain[chain.length - 1].to ?? chain[chain.length - 1].from;
  const begin = chain[0].from - (chain[0].wait ?? 0);
  const all = Math.max(span - begin, 1);
  const live = run.status === "running";
  const what = live ? "the tasks that led to what runs now" : `critical path, ${duration(critical.seconds)}`;
  return html`<section class="panel critical-path">
    <header title=${live ? "Each has begun when the one before it had ended" : "The chain of tasks that has determined how long the run took"}><h2>${live ? "So far" : "What held it up"}</h2><span class="muted small chain">${what}</span></header>
    <ol>
      ${critical.path.length > chain.length || critical.cut ? html`<li class="muted small">… ${many(critical.path.length - chain.length, "task")} before</li>` : null}
      ${chain.map((each) => {
        const long = each.to === null ? null : (each.to - each.from) / 1000;
        const left = ((each.from - begin) / all) * 100;
        const wide = Math.max((((each.to ?? span) - each.from) / all) * 100, 0.8);
        const waited = (each.wait ?? 0) / 1000;
        return html`<li key=${`${each.step}/${each.task_id}`}>
          <a class="cut" href=${addressOf(`${run.pathspec}/${each.step}/${each.task_id}`)}>${each.step}/${each.task_id}</a>
          <span class="nowrap right">${long !== null ? duration(long) : live ? "running" : "not ended"}${waited > 0.05 * (long ?? 0) && waited >= 0.005 ? html` <span class="muted" title="ready, but not begun">+ ${duration(waited)} wait</span>` : ""}</span>
          <span class="where" aria-hidden="true"><i style=${`margin-left:${left}%;width:${wide}%`}></i></span>
        </li>`;
      })}
    </ol>
  </section>`;
}
