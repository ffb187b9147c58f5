// The cards of a task. Each is a document of its own in a frame that can reach nothing of this page.
// What is new on a card is posted into its frame, which draws it without loading anything again.

import { html, useEffect, useRef, useState } from "./lib.js";
import { get, url } from "./api.js";

const LEAST_HEIGHT = 60;
const MOST_HEIGHT = 6000;

/** All cards of a task; `version` of each changes when its content does. */
export function Cards({ run, task, cards }) {
  if (!cards.length) return null;
  return cards.map((card) => html`<${CardPanel} run=${run} task=${task} card=${card} key=${card.id} />`);
}

function CardPanel({ run, task, card }) {
  const place = ["runs", run.flow, run.run_id, "cards", task.step, task.task_id, card.id];
  return html`<section class="panel card">
    <header><h2 class="cut">${card.title || card.id}</h2><span class="muted small">card${card.type && card.type !== "default" ? `, ${card.type}` : ""}</span></header>
    <${Frame} place=${place} card=${card} />
  </section>`;
}

// The frame can fetch nothing. Pictures that are at addresses of their own become part of the data.
async function withPictures(node, signal) {
  if (Array.isArray(node)) await Promise.all(node.map((each) => withPictures(each, signal)));
  else if (node && typeof node === "object") {
    if (node.kind === "image" && typeof node.url === "string" && !node.url.startsWith("data:")) {
      const blob = await (await fetch(node.url, { signal })).blob();
      node.url = await new Promise((done, failed) => {
        const reader = new FileReader();
        reader.onload = () => done(reader.result);
        reader.onerror = failed;
        reader.readAsDataURL(blob);
      });
    }
    await Promise.all(Object.values(node).map((each) => withPictures(each, signal)));
  }
  return node;
}

function Frame({ place, card }) {
  const frame = useRef(null);
  const shown = useRef({ isReady: false, version: card.version });
  const [height, setHeight] = useState(null);
  const [error, setError] = useState(null);
  // The address stays as it was, so that the frame is not loaded again.
  const [address] = useState(() => url(place, { html: 1 }));

  useEffect(() => {
    const listen = (event) => {
      if (!frame.current || event.source !== frame.current.contentWindow) return;
      if (event.data?.asyncflow === "ready") shown.current.isReady = true;
      if (event.data?.asyncflow === "height") setHeight(Math.min(Math.max(Number(event.data.height) || 0, LEAST_HEIGHT), MOST_HEIGHT));
    };
    addEventListener("message", listen);
    return () => removeEventListener("message", listen);
  }, []);

  useEffect(() => {
    if (card.version === shown.current.version) return undefined;
    const controller = new AbortController();
    void (async () => {
      try {
        if (shown.current.isReady) {
          const drawing = await withPictures(await get(url(place), controller.signal), controller.signal);
          frame.current?.contentWindow?.postMessage({ asyncflow: "card", card: drawing }, "*");
        } else if (frame.current) frame.current.src = address; // HTML of a step: a document that does not listen
        shown.current.version = card.version;
        setError(null);
      } catch (problem) {
        if (problem.name !== "AbortError") setError(problem);
      }
    })();
    return () => controller.abort();
  }, [card.version]);

  const title = `Card ${card.title || card.id}`;
  return html`${error && html`<p class="padded muted">The card cannot be shown: ${error.message}</p>`}
    <iframe ref=${frame} class="card-frame" sandbox="allow-scripts" src=${address} title=${title} style=${height ? { height: `${height}px` } : undefined} loading="lazy" referrerpolicy="no-referrer"></iframe>`;
}
