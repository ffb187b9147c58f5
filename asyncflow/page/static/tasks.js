// The tasks of a run: failed ones first, found among any number of them, 200 at a time.

import { html, useEffect } from "./lib.js";
import { url, useData } from "./api.js";
import { duration, firstLine, indexes, number, offset, size } from "./format.js";
import { useNarrow } from "./graph.js";
import { Chips, Choice, Empty, Paging, Problem, Search, State, stateWord, Waiting } from "./parts.js";
import { addressOf, all, changed, one } from "./router.js";
import { Windowed } from "./windowed.js";

const STATES = ["failed", "running", "interrupted", "cancelled", "succeeded"];

/** The tab of a run. `version` goes up when the run has changed. */
export function Tasks({ route, run, steps, version }) {
  const narrow = useNarrow(640);
  const query = {
    step: one(route, "step"),
    state: all(route, "state"),
    find: one(route, "find"),
    order: one(route, "order"),
    after: one(route, "after"),
  };
  const path = ["runs", run.flow, run.run_id, "tasks"];
  const { data, error, busy, reload } = useData(url(path, query), run.pathspec);
  useEffect(() => {
    if (version) reload();
  }, [version]);
  const counts = data?.counts ?? {};
  const shown = STATES.filter((state) => counts[state] || query.state.includes(state));
  const choices = [["", "All steps"], ...steps.map((step) => [step.step, step.step])];
  return html`<div class="stack">
    <div class="row filters">
      <${Search} route=${route} label="Find tasks" hint="id, [3][7] or item" />
      <${Choice} route=${route} name="step" label="Step" choices=${choices} />
      <${Choice} route=${route} name="order" label="Order" choices=${[["", "Failed first"], ["seconds", "Longest first"], ["id", "In order of their ids"]]} />
      <${Chips}
        route=${route}
        name="state"
        label="States"
        choices=${shown.map((state) => [state, html`<${State} state=${state} size=${13} /> ${number(counts[state] ?? 0)}`])}
      />
    </div>
    <${Problem} error=${error} retry=${reload} />
    ${data
      ? html`<section class="panel" aria-busy=${String(busy)} aria-label="Tasks">
          ${data.tasks.length ? html`<${Table} tasks=${data.tasks} narrow=${narrow} />` : html`<${Nothing} route=${route} query=${query} />`}
        </section>
        <${Paging} route=${route} next=${data.next}>
          <span class="muted small">${foundText(data)}</span>
        <//>`
      : !error && html`<${Waiting} />`}
  </div>`;
}

function foundText(data) {
  const found = data.found === null ? "Some" : number(data.found);
  const counted = Object.values(data.counts).reduce((sum, count) => sum + count, 0);
  return `${found} of ${number(counted)} tasks${data.tasks.length < (data.found ?? Infinity) ? `, ${data.tasks.length} on this page` : ""}`;
}

function Nothing({ route, query }) {
  const chosen = query.find || query.step || query.state.length;
  return chosen
    ? html`<${Empty} title="No task is like that">
        <a href=${changed(route, { find: null, step: null, state: null, after: null })}>Show all tasks</a>
      <//>`
    : html`<${Empty} title="No task has begun yet" />`;
}

/** Tasks as rows; also used for a task's neighbours. */
function Table({ tasks, narrow }) {
  const longest = Math.max(...tasks.map((task) => task.seconds ?? 0), 1e-9);
  const draw = (task) => html`<${Row} task=${task} longest=${longest} key=${task.pathspec} />`;
  // Rows are links, and stay that for a screen reader: so this is a list, and no table.
  return html`<div class="task-table">
    <div class="task-row head" aria-hidden="true">
      <span>Task</span>
      <span>Item or failure</span>
      <span class="right">Began</span>
      <span class="right">Took</span>
      <span class="right">Memory</span>
    </div>
    <${Windowed} items=${tasks} height=${narrow ? 56 : 34} draw=${draw} label="Tasks" />
  </div>`;
}

function Row({ task, longest }) {
  const state = task.cloned_from ? "cloned" : task.waiting ? "waiting" : task.status;
  const told = task.failure ? firstLine(task.failure) : task.item;
  const share = task.seconds === null ? 0 : Math.max((task.seconds / longest) * 100, 1);
  return html`<a class=${`task-row ${task.status === "failed" ? "bad" : ""}`} href=${addressOf(task.pathspec)} data-row data-state=${task.status}>
    <span class="cut" title=${stateWord(state)}
      ><${State} state=${state} bare /> <b>${task.step}</b>/${task.task_id} <span class="muted">${indexes(task.path)}${task.attempt ? ` · attempt ${task.attempt}` : ""}</span></span
    >
    <span class="cut muted told" title=${told ?? ""}>${task.caught ? "caught: " : ""}${told ?? ""}</span>
    <span class="right muted began">${task.from === null ? "–" : offset(task.from)}</span>
    <span class="right took" style=${`--share:${share}%`}>${task.cloned_from ? "taken over" : duration(task.seconds)}</span>
    <span class="right muted memory">${task.memory ? size(task.memory) : ""}</span>
  </a>`;
}
