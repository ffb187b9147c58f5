// The page: which view is shown, and what stands around it. Everything comes from this address.

import { html, render, useCallback, useEffect, useErrorBoundary, useMemo, useRef, useState } from "./lib.js";
import { Page } from "./actions.js";
import { url, useData } from "./api.js";
import { DiffView } from "./diff.js";
import { Help, useKeys } from "./keys.js";
import { Empty, Problem, Sprite } from "./parts.js";
import { address, go, parse, useRoute } from "./router.js";
import { RunView } from "./run.js";
import { RunsView } from "./runs.js";

function App() {
  const route = useRoute();
  const { data: info, error } = useData(url(["info"]), "info");
  const [help, setHelp] = useState(false);
  const [link, setLink] = useState("ended");
  const [said, setSaid] = useState(null);
  const main = useRef(null);
  const isFirst = useRef(true);
  const place = route.parts.join("/");
  useKeys(route, { help, setHelp });
  useEffect(() => {
    if (!route.parts.length) go(address(["runs"]), { replace: true });
  }, [place]);
  useEffect(() => {
    document.title = title(route);
    setLink("ended");
    scrollTo(0, 0);
    if (isFirst.current) isFirst.current = false;
    else main.current.focus({ preventScroll: true }); // a screen reader goes on from there
  }, [place]);
  useEffect(() => setHelp(false), [route]);
  useEffect(() => {
    if (!said) return undefined;
    const timer = setTimeout(() => setSaid(null), 4000);
    return () => clearTimeout(timer);
  }, [said]);
  const page = useMemo(() => ({ info, say: setSaid }), [info]);
  const skip = useCallback((event) => {
    event.preventDefault();
    main.current.focus();
  }, []);
  return html`<${Page.Provider} value=${page}>
    <${Sprite} />
    <a class="skip" href="#main" onClick=${skip}>To the content</a>
    <header class="top">
      <a class="brand" href=${address(["runs"])}><img src="./static/icon.svg" alt="" /><span>asyncflow</span></a>
      <nav aria-label="Where you are" class="grow"><ol class="crumbs">${crumbs(route).map(([text, to], at, all) => html`<li key=${to}>${at === all.length - 1 ? html`<span aria-current="page">${text}</span>` : html`<a href=${to}>${text}</a>`}</li>`)}</ol></nav>
      ${info?.store && html`<span class="muted small cut store" title=${info.store}>${info.store}</span>`}
      ${info?.read_only && html`<span class="tag">read only</span>`}
      <${Link} link=${link} />
      <button type="button" class="icon-button plain" onClick=${() => setHelp(true)} aria-label="Keys" title="Keys (?)"><kbd>?</kbd></button>
    </header>
    <main id="main" ref=${main} tabindex="-1">
      <${Guarded} key=${place}>
        ${error?.status === 401 ? html`<${Problem} error=${error} />` : html`<${View} route=${route} tell=${setLink} />`}
      <//>
    </main>
    ${help && html`<${Help} onClose=${() => setHelp(false)} />`}
    <div class="toasts" role="status" aria-live="polite">${said && html`<div class="toast">${said}</div>`}</div>
  <//>`;
}

function View({ route, tell }) {
  const [kind, flow, run] = route.parts;
  if (!kind) return null;
  if (kind === "diff") return html`<${DiffView} route=${route} />`;
  if (kind === "runs" && run) return html`<${RunView} route=${route} tell=${tell} key=${`${flow}/${run}`} />`;
  if (kind === "runs" && flow) {
    return html`<${RunsView} route=${{ parts: ["runs"], query: { ...route.query, flow: [flow] } }} tell=${tell} />`;
  }
  if (kind === "runs") return html`<${RunsView} route=${route} tell=${tell} />`;
  return html`<section class="panel"><${Empty} title="There is no such view"><a href=${address(["runs"])}>All runs</a><//></section>`;
}

/** A view that fails says so; the rest of the page goes on. */
function Guarded({ children }) {
  const [error, reset] = useErrorBoundary((problem) => console.error(problem));
  if (!error) return children;
  return html`<${Problem} error=${{ message: "This view has failed.", advice: String(error.message ?? error) }} retry=${reset} />`;
}

/** Whether the page is live, without words unless something is wrong. */
function Link({ link }) {
  if (link === "live") return html`<span class="link live" title="Live: changes come as they happen"><i></i><span>live</span></span>`;
  if (link === "lost") return html`<span class="link lost" role="status" title="The connection was lost; the page tries again"><i></i><span>reconnecting</span></span>`;
  return null;
}

function crumbs(route) {
  const [kind, flow, run, step, task] = route.parts;
  const found = [["Runs", address(["runs"])]];
  if (kind === "diff") return [...found, ["Compare", address(["diff"])]];
  const named = flow ?? route.query.flow?.[0];
  if (named) found.push([named, address(["runs"], { flow: named })]);
  if (run) found.push([run, address(["runs", flow, run])]);
  if (step) found.push([step, address(["runs", flow, run], { view: "tasks", step })]);
  if (task) found.push([task, address(["runs", flow, run, step, task])]);
  return found;
}

function title(route) {
  const [kind, flow, run, step, task] = route.parts;
  if (kind === "diff") return "Compare · asyncflow";
  if (task) return `${step}/${task} · ${flow} · asyncflow`;
  if (run) return `${flow}/${run} · asyncflow`;
  const named = flow ?? parse(location.hash).query.flow?.[0];
  return named ? `${named} · asyncflow` : "asyncflow";
}

const root = document.getElementById("app");
root.textContent = "";
render(html`<${App} />`, root);
