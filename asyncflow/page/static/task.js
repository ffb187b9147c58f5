// One task: why it failed, its attempts, cards, artifacts and log.

import { html, useEffect, useState } from "./lib.js";
import { url, useCalm, useData } from "./api.js";
import { Cards } from "./task_cards.js";
import { ago, duration, indexes, many, moment, number, offset, printableLines, size } from "./format.js";
import { Log } from "./log.js";
import { Artifacts } from "./preview.js";
import { Copy, FailureLine, Icon, Problem, State, Tabs, Waiting } from "./parts.js";
import { addressOf, one } from "./router.js";

/** The view of a task within its run, which is known already. */
export function TaskView({ route, run, live, version }) {
  const [, , , step, id] = route.parts;
  const address = url(["runs", run.flow, run.run_id, "tasks", step, id]);
  const { data, error, reload } = useData(address);
  useEffect(() => {
    if (version) reload();
  }, [version]);
  const again = useCalm(reload, 100); // a card is refreshed many times a second
  useEffect(
    () =>
      live.listen((events) => {
        const isOurs = (event) => event.type === "CardUpdated" && event.step === step && event.task_id === id;
        if (events.some(isOurs)) again();
      }),
    [live, address],
  );
  const [asked, setAsked] = useState(null);
  if (error && !data) return html`<${Problem} error=${error} retry=${reload} />`;
  if (!data) return html`<${Waiting} />`;
  const { task, attempts } = data;
  const chosen = attempts[asked ?? attempts.length - 1] ?? attempts[attempts.length - 1];
  const view = one(route, "view", "overview");
  const tabs = [
    ["overview", "Overview"],
    ["log", "Log"],
    ["artifacts", "Artifacts", data.artifacts_count],
  ];
  const toTab = { parts: route.parts, query: route.query };
  return html`<div class="stack">
    <${Head} task=${task} attempts=${attempts} />
    <${Problem} error=${error} retry=${reload} />
    <${Tabs} route=${toTab} name="view" tabs=${tabs} current=${view} label="Parts of the task" />
    ${view === "log" && html`<${Log} route=${route} run=${run} task=${task} live=${live} attempts=${attempts.length} />`}
    ${view === "artifacts" && html`<section class="panel"><${Artifacts} task=${task} artifacts=${data.artifacts} count=${data.artifacts_count} /></section>`}
    ${view === "overview" &&
    html`<div class="two">
      <div class="stack">
        ${attempts.length > 1 && html`<${Attempts} attempts=${attempts} chosen=${chosen} choose=${setAsked} />`}
        ${chosen?.failure && html`<${Failure} failure=${chosen.failure} caught=${task.caught} />`}
        <${Cards} run=${run} task=${task} cards=${data.cards ?? []} />
        <section class="panel">
          <header><h2>Artifacts</h2><span class="muted small">${number(data.artifacts_count)}</span></header>
          <${Artifacts} task=${task} artifacts=${data.artifacts} count=${data.artifacts_count} />
        </section>
      </div>
      <aside class="stack">
        <${Facts} task=${task} attempts=${attempts} />
        <${Neighbours} title="After" tasks=${data.parents} count=${data.parents_count} />
        <${Neighbours} title="Before" tasks=${data.children} count=${data.children_count} />
      </aside>
    </div>`}
  </div>`;
}

function Head({ task, attempts }) {
  const state = task.cloned_from ? "cloned" : task.waiting ? "waiting" : task.status;
  return html`<header class="head">
    <div class="row">
      <h1><span class="muted">${task.step}/</span>${task.task_id}${task.path?.length ? html` <span class="muted mono">${indexes(task.path)}</span>` : ""}</h1>
      <${State} state=${state} />
      ${task.caught && html`<span class="tag">its failure was caught</span>`}
      <span class="grow"></span>
      <${Copy} text=${task.pathspec} label="Copy the pathspec" />
    </div>
    <p class="muted">
      ${task.item ? html`item <code>${task.item}</code> · ` : ""}${task.seconds === null ? "not ended" : duration(task.seconds)}${attempts.length > 1 ? ` · ${many(attempts.length, "attempt")}` : ""}
      ${task.created_at ? html` · <span title=${moment(task.created_at)}>${ago(task.created_at, Date.now())}</span>` : ""}
    </p>
  </header>`;
}

function Attempts({ attempts, chosen, choose }) {
  return html`<section class="panel">
    <header><h2>Attempts</h2></header>
    <div class="scroll-x">
      <table>
        <thead><tr><th>Attempt</th><th>How it ended</th><th class="right">Began</th><th class="right">Took</th><th class="right wide-only">Memory</th><th class="right wide-only">CPU</th></tr></thead>
        <tbody>
          ${attempts.map(
            (attempt, place) => html`<tr class=${attempt === chosen ? "chosen" : ""} key=${attempt.attempt}>
              <td><button type="button" class="plain" aria-pressed=${String(attempt === chosen)} onClick=${() => choose(place)}>${attempt.attempt}</button></td>
              <td class="wide"><${State} state=${attempt.status} bare /> ${attempt.failure ? html`<${FailureLine} failure=${attempt.failure} />` : attempt.status}</td>
              <td class="right">${offset(attempt.from)}</td>
              <td class="right nowrap">${duration(attempt.seconds)}</td>
              <td class="right wide-only">${size(attempt.memory)}</td>
              <td class="right wide-only">${duration(attempt.cpu_seconds)}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </section>`;
}

/** A failure with its traceback. */
export function Failure({ failure, caught = false, title = null, where = null }) {
  const text = printableLines(failure.traceback ?? "").trimEnd();
  return html`<section class="panel failure">
    <header>
      <${State} state="failed" bare />
      <h2 class="wide">${title ?? html`<${FailureLine} failure=${failure} />`}</h2>
      ${where && html`<a class="button" href=${where}>Open the task</a>`}
      ${text && html`<${Copy} text=${failure.traceback} label="Copy the traceback" />`}
    </header>
    ${caught && html`<p class="padded muted">The step's @catch let the run go on.</p>`}
    ${text && html`<pre class="traceback" tabindex="0">${traceback(text)}</pre>`}
  </section>`;
}

function traceback(text) {
  return text.split("\n").map((line) => {
    const frame = /^\s*File "/.test(line);
    return frame ? html`<span class="frame">${line}${"\n"}</span>` : `${line}\n`;
  });
}

function Facts({ task, attempts }) {
  const last = attempts[attempts.length - 1];
  const facts = [
    ["Pathspec", html`<code>${task.pathspec}</code>`],
    ["Began", task.created_at && html`<span title=${moment(task.created_at)}>${duration(task.from / 1000)} after the run's start</span>`],
    ["Took", duration(task.seconds)],
    ["Peak memory", last?.memory && size(last.memory)],
    ["CPU time", last?.cpu_seconds !== null && last?.cpu_seconds !== undefined && duration(last.cpu_seconds)],
    ["Process", task.pid || null],
    ["Node", task.node || null],
    ["Repetition", task.repetition || null],
    ["Taken over from", task.cloned_from && html`<a href=${addressOf(task.cloned_from)}>${task.cloned_from}</a>`],
  ].filter(([, value]) => value);
  return html`<section class="panel">
    <header><h2>Facts</h2></header>
    <dl class="facts padded">${facts.map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${value}</dd>`)}</dl>
  </section>`;
}

function Neighbours({ title, tasks, count }) {
  if (!tasks?.length) return null;
  return html`<section class="panel">
    <header><h2>${title === "After" ? "Follows" : "Followed by"}</h2>${count > tasks.length && html`<span class="muted small">${number(count)}</span>`}</header>
    <ul class="links">
      ${tasks.map((pathspec) => html`<li key=${pathspec}><a href=${addressOf(pathspec)}><${Icon} name="next" size=${12} />${pathspec.split("/").slice(2).join("/")}</a></li>`)}
    </ul>
  </section>`;
}
