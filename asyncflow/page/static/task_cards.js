// The cards of a task. A card that is HTML is a document of its own in a frame that can reach nothing
// of this page; the others are data that `cards.js` draws.

import { html, useEffect, useRef, useState } from "./lib.js";
import { get, url } from "./api.js";

/** All cards of a task; `version` goes up when they may have changed. */
export function Cards({ run, task, cards, version }) {
  if (!cards.length) return null;
  return cards.map((card) => html`<${CardPanel} run=${run} task=${task} card=${card} version=${version} key=${card.id} />`);
}

function CardPanel({ run, task, card, version }) {
  const place = ["runs", run.flow, run.run_id, "cards", task.step, task.task_id, card.id];
  return html`<section class="panel card">
    <header><h2 class="cut">${card.title || card.id}</h2><span class="muted small">card${card.type && card.type !== "default" ? `, ${card.type}` : ""}</span></header>
    ${card.type === "html" ? html`<${Frame} address=${url(place, { html: 1, v: version || "" })} title=${card.title || card.id} />` : html`<${Drawn} address=${url(place)} version=${version} />`}
  </section>`;
}

function Frame({ address, title }) {
  return html`<iframe class="card-frame" sandbox="allow-scripts" src=${address} title=${`Card ${title}`} loading="lazy" referrerpolicy="no-referrer"></iframe>`;
}

function Drawn({ address, version }) {
  const box = useRef(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    const controller = new AbortController();
    void (async () => {
      try {
        const [{ drawCard }, data] = await Promise.all([import("./cards.js"), get(address, controller.signal)]);
        if (!controller.signal.aborted) {
          drawCard(box.current, data);
          setError(null);
        }
      } catch (problem) {
        if (problem.name !== "AbortError") setError(problem);
      }
    })();
    return () => controller.abort();
  }, [address, version]);
  return html`${error && html`<p class="padded muted">The card cannot be shown: ${error.message}</p>`}
    <div class="card-body padded" ref=${box}></div>`;
}
