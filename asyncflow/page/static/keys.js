// The keyboard: what each key does, in one list that is shown, too.

import { html, useEffect } from "./lib.js";
import { Dialog } from "./parts.js";
import { address, go } from "./router.js";

export const KEYS = [
  [["?"], "this list"],
  [["/"], "search"],
  [["j", "↓"], "next row"],
  [["k", "↑"], "previous row"],
  [["Enter"], "open"],
  [["Esc"], "close; or one level up"],
  [["1", "…", "6"], "the tabs of a run or task"],
  [["n"], "next page of a list"],
  [["r"], "all runs"],
  [["+", "−", "←", "→", "0"], "in a timeline: closer, further, move, all"],
];

/** Listens for the page's keys. */
export function useKeys(route, { help, setHelp }) {
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      const field = event.target.closest?.("input, select, textarea");
      if (document.querySelector("dialog[open]")) return; // it has keys of its own
      if (field) {
        if (event.key === "Escape") field.blur();
        else if (event.key === "ArrowDown" && field.matches("[data-search]")) move(event, 1);
        return;
      }
      const inText = event.target.closest?.(".log, pre, canvas, .scroll-x");
      const act = {
        "?": () => setHelp(true),
        "/": () => focusSearch(),
        j: () => moved(1),
        k: () => moved(-1),
        ArrowDown: inText ? null : () => moved(1),
        ArrowUp: inText ? null : () => moved(-1),
        Escape: () => up(route),
        n: () => document.querySelector("[data-next]")?.click(),
        r: () => go(address(["runs"])),
      }[event.key];
      const tab = /^[1-9]$/.test(event.key) && document.querySelector(`[data-tab="${event.key}"]`);
      if (tab) {
        event.preventDefault();
        tab.click();
      } else if (act && act() !== false) {
        event.preventDefault();
      }
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, [route, help]);
}

function focusSearch() {
  const field = document.querySelector("[data-search]");
  field?.focus();
  field?.select();
  return Boolean(field);
}

function move(event, by) {
  event.preventDefault();
  moved(by);
}

/** Put the focus on another row; false if there is none, so that the page scrolls as ever. */
function moved(by) {
  const rows = [...document.querySelectorAll("[data-row]")];
  if (!rows.length) return false;
  const at = rows.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? rows.find(isSeen) : null) : rows[at + by];
  if (!next) return at >= 0;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  return true;
}

function isSeen(row) {
  const { top, bottom } = row.getBoundingClientRect();
  return top >= 46 && bottom <= innerHeight;
}

function up(route) {
  const { parts } = route;
  if (parts[0] === "diff" && route.query.a) go(address(["runs", ...route.query.a[0].split("/")]));
  else if (parts.length > 3) go(address(parts.slice(0, 3)));
  else if (parts.length === 3) go(address(["runs"], { flow: parts[1] }));
  else if (Object.keys(route.query).length) go(address(["runs"]));
  else return false;
  return true;
}

/** The list of keys. */
export function Help({ onClose }) {
  return html`<${Dialog} title="Keys" onClose=${onClose}>
    <dl class="facts dialog-body keys">
      ${KEYS.map(([keys, what]) => html`<dt key=${what}>${keys.map((key) => (key === "…" ? "… " : html`<kbd>${key}</kbd> `))}</dt><dd>${what}</dd>`)}
    </dl>
  <//>`;
}
