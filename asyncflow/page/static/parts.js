// Small parts that several views are made of.

import { html, useEffect, useRef, useState } from "./lib.js";
import { firstLine, number } from "./format.js";
import { changed, go } from "./router.js";

const WORDS = {
  succeeded: "succeeded",
  failed: "failed",
  running: "running",
  cancelled: "cancelled",
  interrupted: "interrupted",
  waiting: "waits for its next attempt",
  pending: "not begun",
  cloned: "taken over",
  unreadable: "cannot be read",
};

const SHAPES = {
  succeeded: "ok",
  cloned: "taken",
  failed: "fail",
  unreadable: "fail",
  running: "run",
  interrupted: "warn",
  waiting: "again",
  cancelled: "stop",
  pending: "none",
};

/** The shapes of states and actions, once for the whole page; icons refer to them. */
export function Sprite() {
  return html`<svg width="0" height="0" aria-hidden="true" class="visually-hidden">
    <symbol id="i-ok" viewBox="0 0 16 16">
      <circle cx="8" cy="8" r="7" fill="currentColor" />
      <path d="M4.800 8.300 7 10.500l4.300-4.700" fill="none" stroke="var(--panel)" stroke-width="1.700" stroke-linecap="round" stroke-linejoin="round" />
    </symbol>
    <symbol id="i-taken" viewBox="0 0 16 16">
      <circle cx="8" cy="8" r="6.200" fill="none" stroke="currentColor" stroke-width="1.600" />
      <path d="M5 8.300 7.100 10.300l4-4.400" fill="none" stroke="currentColor" stroke-width="1.600" stroke-linecap="round" stroke-linejoin="round" />
    </symbol>
    <symbol id="i-fail" viewBox="0 0 16 16">
      <path d="M5.100 1h5.800L15 5.100v5.800L10.900 15H5.100L1 10.900V5.100z" fill="currentColor" />
      <path d="m5.600 5.600 4.800 4.800m0-4.800-4.800 4.800" stroke="var(--panel)" stroke-width="1.700" stroke-linecap="round" />
    </symbol>
    <symbol id="i-run" viewBox="0 0 16 16">
      <circle cx="8" cy="8" r="6.200" fill="none" stroke="currentColor" stroke-width="1.700" opacity="0.280" />
      <path d="M8 1.800A6.200 6.200 0 0 1 14.200 8" fill="none" stroke="currentColor" stroke-width="1.900" stroke-linecap="round" />
    </symbol>
    <symbol id="i-warn" viewBox="0 0 16 16">
      <path d="M8 1.300 15.300 14.200H.7z" fill="currentColor" />
      <path d="M8 6v3.600m0 2v.3" stroke="var(--panel)" stroke-width="1.700" stroke-linecap="round" />
    </symbol>
    <symbol id="i-again" viewBox="0 0 16 16">
      <path d="M13.500 8A5.500 5.500 0 1 1 11.700 3.900M13.600 1.500v3.300h-3.300" fill="none" stroke="currentColor" stroke-width="1.700" stroke-linecap="round" stroke-linejoin="round" />
    </symbol>
    <symbol id="i-stop" viewBox="0 0 16 16">
      <rect x="1.500" y="1.500" width="13" height="13" rx="3" fill="currentColor" />
      <path d="M5 8h6" stroke="var(--panel)" stroke-width="1.800" stroke-linecap="round" />
    </symbol>
    <symbol id="i-none" viewBox="0 0 16 16">
      <circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="1.400" stroke-dasharray="2.400 2.300" />
    </symbol>
    <symbol id="i-wait" viewBox="0 0 16 16">
      <circle cx="8" cy="8" r="6.200" fill="none" stroke="currentColor" stroke-width="1.600" />
      <path d="M8 4.500V8l2.300 1.500" fill="none" stroke="currentColor" stroke-width="1.600" stroke-linecap="round" />
    </symbol>
    <symbol id="i-close" viewBox="0 0 16 16">
      <path d="m4 4 8 8m0-8-8 8" stroke="currentColor" stroke-width="1.600" stroke-linecap="round" />
    </symbol>
    <symbol id="i-copy" viewBox="0 0 16 16">
      <rect x="5" y="5" width="8.500" height="8.500" rx="1.500" fill="none" stroke="currentColor" stroke-width="1.400" />
      <path d="M10.500 2.500H4A1.500 1.500 0 0 0 2.500 4v6.500" fill="none" stroke="currentColor" stroke-width="1.400" stroke-linecap="round" />
    </symbol>
    <symbol id="i-play" viewBox="0 0 16 16"><path d="M4.500 2.500v11l9-5.500z" fill="currentColor" /></symbol>
    <symbol id="i-down" viewBox="0 0 16 16">
      <path d="M8 2.500v8m-3.300-3L8 10.800l3.300-3.300M3 13.500h10" fill="none" stroke="currentColor" stroke-width="1.500" stroke-linecap="round" stroke-linejoin="round" />
    </symbol>
    <symbol id="i-edit" viewBox="0 0 16 16">
      <path d="M3 13h2.200l7.300-7.300-2.200-2.200L3 10.800zM9 4.800 11.200 7" fill="none" stroke="currentColor" stroke-width="1.400" stroke-linejoin="round" />
    </symbol>
    <symbol id="i-swap" viewBox="0 0 16 16">
      <path d="M2.500 5.500h10m-2.500-3 3 3-3 3M13.500 10.500h-10m2.500-3-3 3 3 3" fill="none" stroke="currentColor" stroke-width="1.400" stroke-linecap="round" stroke-linejoin="round" />
    </symbol>
    <symbol id="i-next" viewBox="0 0 16 16">
      <path d="m6 3.500 4.500 4.500L6 12.500" fill="none" stroke="currentColor" stroke-width="1.600" stroke-linecap="round" stroke-linejoin="round" />
    </symbol>
  </svg>`;
}

/** One of the sprite's shapes. Without a label it says nothing to a screen reader. */
export function Icon({ name, label, size = 16, spin = false }) {
  const turn = spin ? "spin" : undefined;
  return label
    ? html`<svg width=${size} height=${size} viewBox="0 0 16 16" role="img" aria-label=${label}>
        <use href="#i-${name}" class=${turn} />
      </svg>`
    : html`<svg width=${size} height=${size} viewBox="0 0 16 16" aria-hidden="true">
        <use href="#i-${name}" class=${turn} />
      </svg>`;
}

/** What a state is called. */
export function stateWord(state) {
  return WORDS[state] ?? String(state);
}

/** A state: its shape, and its word unless `bare`. */
export function State({ state, bare = false, size = 15, children }) {
  const known = SHAPES[state] ? state : "unknown";
  const spin = state === "running";
  const shape = SHAPES[state] ?? "none";
  const colour = known === "unreadable" ? "damaged" : known;
  if (bare) {
    return html`<span class="state is-${colour}"><${Icon} name=${shape} size=${size} spin=${spin} label=${stateWord(state)} /></span>`;
  }
  return html`<span class="state is-${colour}"
    ><${Icon} name=${shape} size=${size} spin=${spin} /><span>${children ?? stateWord(state)}</span></span
  >`;
}

/** How far something is: done, taken over, failed and running parts of a whole, which may be open. */
export function Progress({ done = 0, taken = 0, failed = 0, running = 0, stopped = 0, total, open = false, label }) {
  const known = Math.max(total ?? 0, done + taken + failed + running + stopped);
  const parts = { ok: done, taken, fail: failed, idle: stopped, run: running };
  const shown = Object.entries(parts).filter(([, count]) => count > 0);
  return html`<span class=${open ? "bar open" : "bar"} role="img" aria-label=${label ?? `${done + taken} of ${known} done`}>
    ${shown.map(([name, count]) => {
      const share = open ? (name === "run" ? 100 : 0) : known ? Math.max((count / known) * 100, 0.8) : 0;
      return html`<i class=${name} style=${`width:${share}%`} key=${name}></i>`;
    })}
  </span>`;
}

/** A command to copy. */
export function Command({ text }) {
  return html`<div class="command">
    <code tabindex="0">${text}</code>
    <${Copy} text=${text} />
  </div>`;
}

/** A button that puts a text into the clipboard, and says so. */
export function Copy({ text, label = "Copy" }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = setTimeout(() => setDone(false), 1600);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      selectAndCopy(text); // a page without https has no clipboard of its own
    }
    setDone(true);
  };
  return html`<button type="button" class="icon-button" onClick=${copy} title=${label} aria-label=${label}>
    <${Icon} name=${done ? "ok" : "copy"} />
  </button>`;
}

function selectAndCopy(text) {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "visually-hidden";
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** What went wrong with a request, and what helps. */
export function Problem({ error, retry }) {
  if (!error) return null;
  const title = error.status === 401 ? "This page needs its token" : error.message;
  const advice = error.status === 401 ? "Open the address that `asyncflow ui` has printed." : error.advice;
  return html`<div class="notice failed" role="alert">
    <${Icon} name="fail" />
    <div class="stack tight">
      <strong>${title}</strong>
      ${advice && html`<${Advice} text=${advice} />`}
      ${retry && html`<p><button type="button" onClick=${retry}>Try again</button></p>`}
    </div>
  </div>`;
}

/** A sentence that helps, or a command to copy. */
export function Advice({ text }) {
  return /^(asyncflow|python3?) /.test(text)
    ? html`<${Command} text=${text} />`
    : html`<p class="muted">${text}</p>`;
}

/** A view that waits for its first answer. */
export function Waiting() {
  return html`<p class="empty" role="status">Loading …</p>`;
}

/** Nothing to show, and why. */
export function Empty({ title, children }) {
  return html`<div class="empty"><strong>${title}</strong>${children}</div>`;
}

/** Tabs: links that change one name of the query. `tabs` are [value, label, count, is_bad]. */
export function Tabs({ route, name, tabs, current, label }) {
  const bar = useRef(null);
  useEffect(() => {
    // On a narrow page the row of tabs scrolls: the current one is to be seen.
    const [row, tab] = [bar.current, bar.current?.querySelector("[aria-current]")];
    if (!tab) return;
    const hidden = tab.offsetLeft - row.offsetLeft + tab.offsetWidth - row.clientWidth;
    if (hidden > row.scrollLeft) row.scrollLeft = hidden;
    else row.scrollLeft = Math.min(row.scrollLeft, tab.offsetLeft - row.offsetLeft);
  }, [current]);
  return html`<nav class="tabs" aria-label=${label} ref=${bar}>
    ${tabs.map(
      ([value, title, count, bad], place) => html`<a
        href=${changed({ parts: route.parts, query: {} }, { [name]: value })}
        aria-current=${value === current ? "page" : undefined}
        data-tab=${place + 1}
        key=${value}
        >${title}${count ? html`<span class="count ${bad ? "bad" : ""}">${number(count)}</span>` : null}</a
      >`,
    )}
  </nav>`;
}

/** A field that changes one name of the query when the typing pauses. */
export function Search({ route, name = "find", label, hint, ...others }) {
  const held = route.query[name]?.[0] ?? "";
  const [text, setText] = useState(held);
  const timer = useRef(0);
  const latest = useRef(route);
  latest.current = route;
  useEffect(() => {
    if (!timer.current) setText(held);
  }, [held]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const tell = (value) => {
    timer.current = 0;
    go(changed(latest.current, { [name]: value, after: null }), { replace: true });
  };
  const write = (event) => {
    const { value } = event.currentTarget;
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => tell(value), 220);
  };
  return html`<input
    type="search"
    class="search"
    value=${text}
    onInput=${write}
    placeholder=${hint ?? label}
    aria-label=${label}
    spellcheck="false"
    autocomplete="off"
    data-search
    ...${others}
  />`;
}

/** A choice that changes one name of the query. `choices` are [value, label]. */
export function Choice({ route, name, label, choices, otherwise = "" }) {
  const held = route.query[name]?.[0] ?? otherwise;
  const choose = (event) => {
    const { value } = event.currentTarget;
    go(changed(route, { [name]: value === otherwise ? null : value, after: null }));
  };
  return html`<select aria-label=${label} title=${label} onChange=${choose} value=${held}>
    ${choices.map(
      ([value, title]) => html`<option value=${value} selected=${value === held} key=${value}>${title}</option>`,
    )}
  </select>`;
}

/** Chips of which several can be chosen. `choices` are [value, what it shows]. */
export function Chips({ route, name, label, choices }) {
  const held = new Set(route.query[name] ?? []);
  const toggle = (value) => {
    const next = new Set(held);
    if (!next.delete(value)) next.add(value);
    go(changed(route, { [name]: [...next], after: null }));
  };
  return html`<div class="chips" role="group" aria-label=${label}>
    ${choices.map(
      ([value, shown]) => html`<button
        type="button"
        class="chip"
        aria-pressed=${String(held.has(value))}
        onClick=${() => toggle(value)}
        key=${value}
      >
        ${shown}
      </button>`,
    )}
  </div>`;
}

/** Links to the following part of a list and back to its first. */
export function Paging({ route, next, children }) {
  const after = route.query.after?.[0];
  if (!next && !after) return children ? html`<footer class="paging">${children}</footer>` : null;
  return html`<footer class="paging">
    ${children}
    <span class="grow"></span>
    ${after && html`<a class="button" href=${changed(route, { after: null })}>First page</a>`}
    ${next && html`<a class="button" href=${changed(route, { after: next })} data-next>Next page</a>`}
  </footer>`;
}

/**
 * A dialog over the page; Esc and a click beside it close it. `onClose` is called then.
 */
export function Dialog({ title, onClose, children, wide = false }) {
  const ref = useRef(null);
  useEffect(() => {
    const dialog = ref.current;
    const before = document.activeElement;
    dialog.showModal();
    // The first thing in it is the button that closes it: a key that was meant for the page would.
    if (!document.activeElement?.matches("dialog input, dialog textarea")) dialog.focus();
    return () => {
      dialog.close();
      before?.focus?.();
    };
  }, []);
  const beside = (event) => event.target === ref.current && onClose();
  const cancelled = (event) => {
    event.preventDefault();
    onClose();
  };
  return html`<dialog
    ref=${ref}
    class=${wide ? "wide" : ""}
    tabindex="-1"
    aria-label=${title}
    onMouseDown=${beside}
    onCancel=${cancelled}
  >
    <header>
      <h2>${title}</h2>
      <button type="button" class="icon-button plain" onClick=${onClose} aria-label="Close"><${Icon} name="close" /></button>
    </header>
    ${children}
  </dialog>`;
}

/** A failure in one line: its type strong, its message behind. */
export function FailureLine({ failure }) {
  if (!failure) return null;
  return html`<span class="failure-line"><strong>${failure.type}</strong>${failure.message ? `: ${firstLine(failure.message)}` : ""}</span>`;
}
