// What can be done: cancel, resume with its plan, start a run from a form, change tags. Each is a
// dialog that the address names (`do=`), and a POST with the page's token.

import { createContext, html, useContext, useMemo, useState } from "./lib.js";
import { act, url, useData } from "./api.js";
import { number } from "./format.js";
import { Graph } from "./graph.js";
import { Advice, Command, Dialog, Icon, Problem, Waiting } from "./parts.js";
import { address, addressOf, changed, go, one } from "./router.js";

/** `api/info`, and `say(text)` for a short message. */
export const Page = createContext({ info: null, say: () => {} });

export function usePage() {
  return useContext(Page);
}

/** Whether the page may do this. */
export function useMay(action) {
  const { info } = usePage();
  return Boolean(info?.actions?.includes(action));
}

/** What is sent, and how it stands: [send, busy, error]. */
function useAction(path, done) {
  const { info } = usePage();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const send = async (body) => {
    setBusy(true);
    setError(null);
    try {
      done(await act(url(path), body, info?.action_token));
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  };
  return [send, busy, error];
}

/** The dialog that the address asks for, about a run. */
export function RunDialog({ route, run, graph, reload }) {
  const asked = one(route, "do");
  const close = () => go(changed(route, { do: null, from: null }));
  if (asked === "cancel") return html`<${Cancel} run=${run} close=${close} reload=${reload} />`;
  if (asked === "resume") return html`<${Resume} route=${route} run=${run} graph=${graph} close=${close} />`;
  if (asked === "tags") return html`<${Tags} run=${run} close=${close} reload=${reload} />`;
  if (asked === "run") return html`<${StartForm} flow=${run.flow} close=${close} />`;
  return null;
}

function Cancel({ run, close, reload }) {
  const { say } = usePage();
  const [reason, setReason] = useState("");
  const [send, busy, error] = useAction(["runs", run.flow, run.run_id, "cancel"], (answer) => {
    say(answer.status === "running" ? "The run was told to stop." : `The run is ${answer.status}.`);
    close();
    reload();
  });
  const submit = (event) => {
    event.preventDefault();
    void send({ reason });
  };
  return html`<${Dialog} title="Cancel the run" onClose=${close}>
    <form onSubmit=${submit}>
      <div class="dialog-body">
        <p>Its running tasks are stopped. What has succeeded is kept, and a resume takes it over.</p>
        <label class="field">
          <span>Reason</span>
          <input value=${reason} onInput=${(event) => setReason(event.currentTarget.value)} placeholder="for the journal; may be empty" maxlength="500" autofocus />
        </label>
        <${Problem} error=${error} />
      </div>
      <div class="dialog-foot">
        <button type="button" onClick=${close}>Let it run</button>
        <button type="submit" class="primary" disabled=${busy}>${busy ? "Cancelling …" : "Cancel the run"}</button>
      </div>
    </form>
  <//>`;
}

function Resume({ route, run, graph, close }) {
  const { say } = usePage();
  const step = one(route, "from") || null;
  const { data: plan, error: refused } = useData(url(["plan"], { run: run.pathspec, step }), run.pathspec);
  const [command, setCommand] = useState(null);
  const [send, busy, error] = useAction(["runs", run.flow, run.run_id, "resume"], (answer) => {
    if (!answer.run) {
      setCommand(answer.command);
      return;
    }
    say("The run was resumed.");
    go(addressOf(answer.run));
  });
  const may = useMay("resume");
  const byStep = useMemo(() => new Map((plan?.steps ?? []).map((each) => [each.step, each])), [plan]);
  const pick = (event) => go(changed(route, { from: event.currentTarget.value || null }), { replace: true });
  const kept = sum(plan, "reused");
  const toRun = sum(plan, "to_run");
  return html`<${Dialog} title="Resume the run" onClose=${close} wide>
    <div class="dialog-body">
      <p>A new run takes over what has succeeded, and runs the rest with the code as it is now.</p>
      <label class="field inline">
        <span>Run again from</span>
        <select onChange=${pick} value=${step ?? ""}>
          <option value="" selected=${!step}>what has not succeeded</option>
          ${(graph?.nodes ?? []).map((node) => html`<option value=${node.step} selected=${node.step === step} key=${node.step}>the step ${node.step}</option>`)}
        </select>
      </label>
      <${Problem} error=${refused} />
      ${plan ? html`
        <p role="status"><strong>${number(kept)}</strong> task${kept === 1 ? " is" : "s are"} kept, <strong>${atLeast(plan)}${number(toRun)}</strong> will run.</p>
        ${graph && html`<div class="panel sunk"><${Graph} graph=${graph} plan=${byStep} /></div>`}
        <ul class="reasons">
          ${plan.steps.filter((each) => each.why).map((each) => html`<li key=${each.step}><b>${each.step}</b> ${each.why}</li>`)}
        </ul>
        <${Command} text=${plan.command} />` : !refused && html`<${Waiting} />`}
      ${command && html`<div class="notice warning"><${Icon} name="wait" /><div class="stack tight"><p>It has not begun yet. In a terminal:</p><${Command} text=${command} /></div></div>`}
      <${Problem} error=${error} />
      ${!may && html`<p class="muted">This page cannot start runs: use the command.</p>`}
    </div>
    <div class="dialog-foot">
      <button type="button" onClick=${close}>Close</button>
      ${may && html`<button type="button" class="primary" disabled=${busy || !plan} onClick=${() => send({ step })}>
        <${Icon} name="play" size=${12} />${busy ? "Starting …" : "Resume"}
      </button>`}
    </div>
  <//>`;
}

function sum(plan, name) {
  return (plan?.steps ?? []).reduce((all, step) => all + (step[name] ?? 0), 0);
}

function atLeast(plan) {
  return plan.steps.some((step) => step.at_least) ? "at least " : "";
}

function Tags({ run, close, reload }) {
  const { say } = usePage();
  const [tags, setTags] = useState(run.tags);
  const [text, setText] = useState("");
  const [send, busy, error] = useAction(["runs", run.flow, run.run_id, "tags"], () => {
    say("The tags were changed.");
    close();
    reload();
  });
  const wanted = text.trim() && !tags.includes(text.trim()) ? [...tags, text.trim()] : tags;
  const submit = (event) => {
    event.preventDefault();
    const add = wanted.filter((tag) => !run.tags.includes(tag));
    const remove = run.tags.filter((tag) => !wanted.includes(tag));
    if (add.length || remove.length) void send({ add, remove });
    else close();
  };
  const keys = (event) => {
    if (event.key === "Enter" && text.trim()) {
      event.preventDefault();
      setTags(wanted);
      setText("");
    }
  };
  return html`<${Dialog} title="Tags of the run" onClose=${close}>
    <form onSubmit=${submit}>
      <div class="dialog-body">
        <div class="chips">
          ${tags.map((tag) => html`<span class="tag" key=${tag}><span class="cut">${tag}</span>
            <button type="button" class="plain remove" aria-label=${`Remove ${tag}`} onClick=${() => setTags(tags.filter((each) => each !== tag))}><${Icon} name="close" size=${10} /></button>
          </span>`)}
          ${!tags.length && html`<span class="muted">No tags</span>`}
        </div>
        <label class="field">
          <span>Add a tag</span>
          <input value=${text} onInput=${(event) => setText(event.currentTarget.value)} onKeyDown=${keys} placeholder="Enter adds it" maxlength="200" autofocus />
        </label>
        <${Problem} error=${error} />
      </div>
      <div class="dialog-foot">
        <button type="button" onClick=${close}>Leave them</button>
        <button type="submit" class="primary" disabled=${busy}>${busy ? "Saving …" : "Save"}</button>
      </div>
    </form>
  <//>`;
}

/** A form to start a run of a flow, made from its parameters. */
export function StartForm({ flow, close }) {
  const { say } = usePage();
  const may = useMay("run");
  const { data: form, error: refused } = useData(url(["flows", flow, "form"]));
  const [values, setValues] = useState({});
  const [tags, setTags] = useState(null);
  const [command, setCommand] = useState(null);
  const [send, busy, error] = useAction(["flows", flow, "run"], (answer) => {
    if (!answer.run) {
      setCommand(answer.command);
      return;
    }
    say("The run was started.");
    go(addressOf(answer.run));
  });
  const valueOf = (each) => values[each.name] ?? each.value ?? each.default ?? "";
  const submit = (event) => {
    event.preventDefault();
    const given = form.parameters.filter((each) => valueOf(each) !== "" || each.required);
    const parameters = Object.fromEntries(given.map((each) => [each.name, valueOf(each)]));
    void send({ parameters, tags: words(tags ?? (form.tags ?? []).join(" ")) });
  };
  return html`<${Dialog} title=${`Run ${flow}`} onClose=${close}>
    <${Problem} error=${refused} />
    ${!form && !refused && html`<${Waiting} />`}
    ${form && html`<form onSubmit=${submit}>
      <div class="dialog-body">
        ${form.doc && html`<p class="muted">${form.doc}</p>`}
        ${!form.known && html`<p class="muted">An earlier version has written the latest run: only the names and values of its parameters are known.</p>`}
        ${form.parameters.map(
          (each, place) => html`<${Field} parameter=${each} value=${valueOf(each)} first=${place === 0} change=${(value) => setValues((old) => ({ ...old, [each.name]: value }))} key=${each.name} />`,
        )}
        ${!form.parameters.length && html`<p>The flow has no parameters.</p>`}
        <label class="field">
          <span>Tags</span>
          <input value=${tags ?? (form.tags ?? []).join(" ")} onInput=${(event) => setTags(event.currentTarget.value)} placeholder="separated by spaces" />
        </label>
        ${command && html`<div class="notice warning"><${Icon} name="wait" /><div class="stack tight"><p>It has not begun yet. In a terminal:</p><${Command} text=${command} /></div></div>`}
        <${Problem} error=${error} />
        ${!may && html`<div class="stack tight"><p class="muted">This page cannot start runs. In a terminal:</p>${form.command && html`<${Advice} text=${form.command} />`}</div>`}
      </div>
      <div class="dialog-foot">
        <button type="button" onClick=${close}>Close</button>
        ${may && html`<button type="submit" class="primary" disabled=${busy}><${Icon} name="play" size=${12} />${busy ? "Starting …" : "Run"}</button>`}
      </div>
    </form>`}
  <//>`;
}

function Field({ parameter, value, change, first }) {
  const { name, type, help, required } = parameter;
  const write = (event) => change(event.currentTarget.value);
  const long = type === "JSON" || value.length > 60 || value.includes("\n");
  let input;
  if (type === "bool") {
    input = html`<select value=${String(value)} onChange=${write}>
      ${["True", "False"].map((each) => html`<option value=${each} selected=${each.toLowerCase() === String(value).toLowerCase()} key=${each}>${each}</option>`)}
    </select>`;
  } else if (long) {
    input = html`<textarea rows="3" class="mono" value=${value} onInput=${write} required=${required} spellcheck="false"></textarea>`;
  } else {
    const mode = type === "int" ? "numeric" : type === "float" ? "decimal" : undefined;
    input = html`<input value=${value} onInput=${write} required=${required} inputmode=${mode} autocomplete="off" spellcheck="false" autofocus=${first} name=${`parameter-${name}`} />`;
  }
  return html`<label class="field">
    <span>${name}${required ? html`<span class="muted"> (required)</span>` : ""} ${type && html`<span class="muted small">${type}</span>`}</span>
    ${input}
    ${help && html`<span class="muted small">${help}</span>`}
  </label>`;
}

function words(text) {
  return [...new Set(text.split(/\s+/).filter(Boolean))];
}

/** The buttons of a run's head. */
export function RunButtons({ route, run }) {
  const { info } = usePage();
  const to = (what) => changed(route, { do: what });
  const may = (action) => info?.actions?.includes(action);
  const over = !["running", "unreadable"].includes(run.status);
  return html`<div class="row buttons">
    ${run.status === "running" && may("cancel") && html`<a class="button danger" href=${to("cancel")} data-do="cancel"><${Icon} name="stop" size=${13} />Cancel</a>`}
    ${over && may("resume") && html`<a class=${`button ${run.status === "succeeded" ? "" : "primary"}`} href=${to("resume")} data-do="resume"><${Icon} name="again" size=${13} />Resume …</a>`}
    ${may("run") && html`<a class="button" href=${to("run")} data-do="run"><${Icon} name="play" size=${11} />Run again …</a>`}
    <a class="button" href=${address(["diff"], { a: run.pathspec })} data-do="diff">Compare …</a>
  </div>`;
}
