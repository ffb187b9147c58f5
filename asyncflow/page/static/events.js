// The events of a run as they are in its journal, for whoever wants to know exactly.

import { html, useEffect, useState } from "./lib.js";
import { url, useData } from "./api.js";
import { offset } from "./format.js";
import { Choice, Empty, Paging, Problem, Waiting } from "./parts.js";
import { one } from "./router.js";

const TYPES = [
  "RunStarted",
  "TaskStarted",
  "TaskLogged",
  "TaskSucceeded",
  "TaskFailed",
  "TaskRetried",
  "TaskCloned",
  "TaskYielded",
  "RunSucceeded",
  "RunFailed",
  "RunCancelled",
];

/** The tab of a run. */
export function Events({ route, run, steps, version }) {
  const query = { type: one(route, "type"), step: one(route, "step"), after: one(route, "after") };
  const path = ["runs", run.flow, run.run_id, "events"];
  const { data, error, busy, reload } = useData(url(path, query), run.pathspec);
  useEffect(() => {
    if (version) reload();
  }, [version]);
  const choices = [["", "All steps"], ...steps.map((step) => [step.step, step.step])];
  return html`<div class="stack">
    <div class="row">
      <${Choice} route=${route} name="type" label="Type" choices=${[["", "All types"], ...TYPES.map((type) => [type, type])]} />
      <${Choice} route=${route} name="step" label="Step" choices=${choices} />
    </div>
    <${Problem} error=${error} retry=${reload} />
    ${data
      ? html`<section class="panel" aria-busy=${String(busy)} aria-label="Events">
          ${data.events.length
            ? html`<ol class="events">${data.events.map((event) => html`<${Event} event=${event} key=${event.seq} />`)}</ol>`
            : html`<${Empty} title="No event is like that" />`}
        </section>
        <${Paging} route=${route} next=${data.end ? null : String(data.after)} />`
      : !error && html`<${Waiting} />`}
  </div>`;
}

function Event({ event }) {
  const [open, setOpen] = useState(false);
  return html`<li>
    <details onToggle=${(happened) => setOpen(happened.currentTarget.open)}>
      <summary data-row>
        <span class="seq">${event.seq}</span>
        <span class="at" title=${event.time}>${offset(event.at)}</span>
        <span class=${`type ${/Failed/.test(event.type) ? "is-failed" : ""}`}>${event.type}</span>
        <span class="cut muted">${briefly(event)}</span>
      </summary>
      ${open && html`<pre class="block" tabindex="0">${JSON.stringify(event, null, 2)}</pre>`}
    </details>
  </li>`;
}

function briefly(event) {
  const who = event.step ? `${event.step}/${event.task_id}` : "";
  const what = event.line ?? event.message ?? event.reason ?? "";
  const type = event.exception_type ? `${event.exception_type}: ` : "";
  return [who, event.attempt ? `attempt ${event.attempt}` : "", `${type}${what}`].filter(Boolean).join(" · ");
}
