// Two runs side by side: what differs, and how long each step took in either.

import { html } from "./lib.js";
import { url, useData } from "./api.js";
import { ago, duration, many, moment, number, size } from "./format.js";
import { Choice, Empty, Icon, Problem, State, Waiting } from "./parts.js";
import { briefly, Preview } from "./preview.js";
import { addressOf, changed, one } from "./router.js";

/** The view of `#/diff?a=FLOW/RUN&b=FLOW/RUN`. */
export function DiffView({ route }) {
  const [a, b] = [one(route, "a"), one(route, "b")];
  if (!a) return html`<section class="panel"><${Empty} title="No run to compare">Open a run, and choose Compare.<//></section>`;
  return html`<div class="stack">
    <header class="head"><h1>Compare two runs</h1></header>
    <${Pair} route=${route} a=${a} b=${b} />
    ${b ? html`<${Differences} a=${a} b=${b} />` : html`<section class="panel"><${Empty} title="With which run?">Choose the other run above.<//></section>`}
  </div>`;
}

function Pair({ route, a, b }) {
  const flow = a.split("/")[0];
  const { data } = useData(url(["runs"], { flow, limit: 100 }), flow);
  const choices = (data?.runs ?? []).map((run) => [run.pathspec, `${run.run_id} · ${run.status} · ${ago(run.created_at, Date.now())}`]);
  const offered = (held) => (!held || choices.some(([pathspec]) => pathspec === held) ? choices : [[held, held], ...choices]);
  return html`<div class="row pair">
    <label class="field grow"><span>A</span><${Choice} route=${route} name="a" label="Run A" choices=${offered(a)} /></label>
    <a class="button icon-button" href=${changed(route, { a: b || a, b: b ? a : null })} title="Swap" aria-label="Swap"><${Icon} name="swap" /></a>
    <label class="field grow"><span>B</span><${Choice} route=${route} name="b" label="Run B" choices=${[["", "Choose a run"], ...offered(b)]} /></label>
  </div>`;
}

function Differences({ a, b }) {
  const { data, error, reload } = useData(url(["diff"], { a, b }));
  if (error) return html`<${Problem} error=${error} retry=${reload} />`;
  if (!data) return html`<${Waiting} />`;
  return html`
    <div class="two even">${data.runs.map((run, place) => html`<${RunCard} run=${run} letter=${"AB"[place]} key=${place} />`)}</div>
    <${Parameters} parameters=${data.parameters} />
    <${Steps} steps=${data.steps} runs=${data.runs} />
    <${Artifacts} artifacts=${data.artifacts} same=${data.artifacts_same} runs=${data.runs} />
    <${Code} code=${data.code} />
  `;
}

function RunCard({ run, letter }) {
  return html`<section class="panel padded">
    <div class="row"><span class="letter">${letter}</span><a class="cut" href=${addressOf(run.pathspec)}><b>${run.pathspec}</b></a><span class="grow"></span><${State} state=${run.status} /></div>
    <p class="muted small" title=${moment(run.created_at)}>${ago(run.created_at, Date.now())} · ${duration(run.seconds ?? run.so_far)} · ${many(run.done ?? 0, "task")} done${run.tags?.length ? ` · ${run.tags.join(", ")}` : ""}</p>
  </section>`;
}

function Parameters({ parameters }) {
  return html`<section class="panel">
    <header><h2>Parameters</h2></header>
    ${parameters.length ? html`<div class="scroll-x"><table>
      <thead><tr><th>Name</th><th>A</th><th>B</th></tr></thead>
      <tbody>${parameters.map((each) => html`<tr key=${each.name}><td><b>${each.name}</b></td><td class="was">${given(each.a)}</td><td class="is">${given(each.b)}</td></tr>`)}</tbody>
    </table></div>` : html`<p class="padded muted">All are the same.</p>`}
  </section>`;
}

/** A parameter's value; one that is empty, or not there, says so. */
function given(value) {
  if (value === null || value === undefined) return html`<span class="muted">not there</span>`;
  return value === "" ? html`<span class="muted">empty</span>` : html`<code>${value}</code>`;
}

function Steps({ steps, runs }) {
  const times = steps.flatMap((step) => [step.a?.seconds ?? 0, step.b?.seconds ?? 0]);
  const most = Math.max(...times, 1e-9);
  const rows = [...steps.map((step) => [step.step, step.a, step.b])];
  const [a, b] = runs;
  return html`<section class="panel">
    <header><h2>Steps</h2><span class="muted small">from the first task's begin to the last one's end</span></header>
    <div class="scroll-x"><table class="diff-steps">
      <thead><tr><th>Step</th><th class="right">Tasks</th><th class="wide-only">Time of A and B</th><th class="right">A</th><th class="right">B</th><th class="right">B to A</th></tr></thead>
      <tbody>
        ${rows.map(([name, first, second]) => html`<tr key=${name}>
          <td><b>${name}</b></td>
          <td class="right nowrap">${tasksText(first, second)}</td>
          <td class="bars wide-only"><i class="a" style=${`width:${((first?.seconds ?? 0) / most) * 100}%`}></i><i class="b" style=${`width:${((second?.seconds ?? 0) / most) * 100}%`}></i></td>
          <td class="right nowrap">${duration(first?.seconds)}</td>
          <td class="right nowrap">${duration(second?.seconds)}</td>
          <td class="right nowrap">${change(first?.seconds, second?.seconds)}</td>
        </tr>`)}
        <tr class="sum"><td><b>Whole run</b></td><td></td><td class="wide-only"></td><td class="right nowrap">${duration(a.seconds)}</td><td class="right nowrap">${duration(b.seconds)}</td><td class="right nowrap">${change(a.seconds, b.seconds)}</td></tr>
      </tbody>
    </table></div>
  </section>`;
}

function tasksText(a, b) {
  const [first, second] = [a?.tasks ?? 0, b?.tasks ?? 0];
  const failed = [[a, "A"], [b, "B"]].filter(([side]) => side?.failed).map(([side, letter]) => `${number(side.failed)} in ${letter}`);
  const text = first === second ? number(first) : `${number(first)} → ${number(second)}`;
  return failed.length ? html`${text} <span class="is-failed">failed: ${failed.join(", ")}</span>` : text;
}

function change(a, b) {
  if (!a || !b) return "–";
  const ratio = b / a;
  if (Math.abs(ratio - 1) < 0.02) return "=";
  const percent = Math.round((ratio - 1) * 100);
  const text = ratio >= 3 ? `${ratio.toFixed(1)} ×` : `${percent > 0 ? "+" : "−"}${Math.abs(percent)} %`;
  return html`<span class=${ratio > 1.1 ? "slower" : ratio < 0.9 ? "faster" : ""}>${text}</span>`;
}

function Artifacts({ artifacts, same }) {
  return html`<section class="panel">
    <header><h2>Artifacts</h2><span class="muted small">${number(same)} ${same === 1 ? "is" : "are"} the same</span></header>
    ${artifacts.length ? html`<ul class="artifacts">${artifacts.map((each) => html`<li key=${`${each.step}/${each.name}`}>
      <details>
        <summary data-row><b class="cut mono">${each.step}/${each.name}</b><span class="cut brief mono muted">${standing(each)}</span><span class="muted small nowrap">${sides(each)}</span></summary>
        <div class="two even padded">${["a", "b"].map((side) => html`<div class="stack tight" key=${side}><h3>${side.toUpperCase()}${each[side] ? `: ${each[side].type}, ${size(each[side].size)}` : ""}</h3>${each[side] ? html`<${Preview} preview=${each[side].preview} />` : html`<p class="muted">not there</p>`}</div>`)}</div>
      </details>
    </li>`)}</ul>` : html`<p class="padded muted">None differs.</p>`}
  </section>`;
}

/** What an artifact is in either run, in short. */
function standing({ standing: how, a, b }) {
  if (how !== "changed") return how === "only a" ? "only in A" : "only in B";
  const [first, second] = [briefly(a.preview), briefly(b.preview)];
  return first && second ? `${first.slice(0, 60)} → ${second.slice(0, 60)}` : "changed";
}

function sides({ a, b }) {
  return [a, b].map((each) => (each ? `${each.type} ${size(each.size)}` : "–")).join(" → ");
}

function Code({ code }) {
  return html`<section class="panel">
    <header><h2>Code</h2></header>
    ${code === null || code === undefined ? html`<p class="padded muted">The code of one of them was not kept.</p>` : code.length ? code.map((file) => html`<div key=${file.file}>
      <h3 class="file mono">${file.file}</h3>
      <pre class="source diff" tabindex="0">${file.diff.slice(2).map((line) => html`<span class=${kindOf(line)}>${line}${"\n"}</span>`)}</pre>
      ${file.cut && html`<p class="padded muted small">The rest was cut.</p>`}
    </div>`) : html`<p class="padded muted">It is the same.</p>`}
  </section>`;
}

function kindOf(line) {
  return { "+": "plus", "-": "minus", "@": "place" }[line[0]] ?? "";
}
