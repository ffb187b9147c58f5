// All that the page asks the server: answers as JSON, actions, and what is live. The addresses are
// those of docs/reference/json-api.md, relative to the page.

import { useCallback, useEffect, useRef, useState } from "./lib.js";

/** An answer other than 200: its status, what it says, and what helps. */
export class Refused extends Error {
  constructor(status, message, advice) {
    super(message);
    this.status = status;
    this.advice = advice ?? null;
  }
}

/** `api/` and encoded parts, with a query. */
export function url(parts, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") search.append(name, each);
    }
  }
  const text = search.toString();
  return `api/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** The JSON of an address. */
export async function get(address, signal) {
  let answer;
  try {
    answer = await fetch(address, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer.", "Is `asyncflow ui` still running?");
  }
  return read(answer);
}

/** Do something: a POST with the token of `api/info`. */
export async function act(address, body, token) {
  let answer;
  try {
    answer = await fetch(address, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Asyncflow-Token": token ?? "" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, "The server does not answer.", "Is `asyncflow ui` still running?");
  }
  return read(answer);
}

async function read(answer) {
  let data = null;
  try {
    data = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (answer.ok) throw new Refused(answer.status, "The answer is not JSON.", null);
  }
  if (answer.ok) return data;
  const told = data?.error;
  if (told && typeof told === "object") throw new Refused(answer.status, told.message, told.do);
  throw new Refused(answer.status, typeof told === "string" ? told : `HTTP ${answer.status}`, null);
}

/**
 * The JSON of an address, asked for again when it changes or `reload` is called. While a new answer
 * is on its way, the one before stays, unless the address has another `key`.
 */
export function useData(address, key = address) {
  const [state, setState] = useState({ key: null, data: null, error: null, busy: true });
  const request = useRef(null);
  const load = useCallback(() => {
    request.current?.abort();
    if (!address) return Promise.resolve();
    const controller = new AbortController();
    request.current = controller;
    const isCurrent = () => request.current === controller;
    setState((old) => ({ ...old, busy: true }));
    return get(address, controller.signal).then(
      (data) => isCurrent() && setState({ key, data, error: null, busy: false }),
      (error) =>
        error.name === "AbortError" || !isCurrent()
          ? undefined
          : setState((old) => ({ key, data: old.key === key ? old.data : null, error, busy: false })),
    );
  }, [address, key]);
  useEffect(() => {
    load();
    return () => request.current?.abort();
  }, [load]);
  const mine = state.key === key;
  return {
    data: mine ? state.data : null,
    error: mine ? state.error : null,
    busy: state.busy || !mine,
    reload: load,
  };
}

/**
 * Server-sent events that lose nothing: after a cut, or while the page was hidden, they go on behind
 * the last id that has come. A browser has six connections to a server for all of its pages together,
 * so a hidden page gives its own back.
 */
export class Watch {
  /** `address` makes the URL from the last id; `heard` gets each message's data. */
  constructor(address, { since = 0, heard, ended = () => {}, changed = () => {} }) {
    Object.assign(this, { address, last: since, heard, ended, changed });
    this.source = null;
    this.timer = 0;
    this.wait = 250;
    this.closed = false;
    this.onVisibility = () => (document.hidden ? this.pause() : this.open());
    document.addEventListener("visibilitychange", this.onVisibility);
    if (!document.hidden) this.open();
  }

  open() {
    if (this.closed || this.source) return;
    clearTimeout(this.timer);
    const source = new EventSource(this.address(this.last));
    this.source = source;
    source.onopen = () => {
      this.wait = 250;
      this.changed("live");
    };
    source.onmessage = (message) => {
      const id = Number(message.lastEventId);
      if (Number.isFinite(id) && id > this.last) this.last = id;
      this.heard(JSON.parse(message.data));
    };
    source.addEventListener("end", (message) => {
      this.close();
      this.ended(JSON.parse(message.data || "{}"));
    });
    source.onerror = () => {
      if (this.closed) return;
      // The browser's own reconnection waits for seconds, and gives up after a refusal.
      this.pause();
      this.changed("lost");
      this.timer = setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(this.wait * 2, 5000);
    };
  }

  pause() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  close() {
    this.closed = true;
    this.pause();
    document.removeEventListener("visibilitychange", this.onVisibility);
    this.changed("ended");
  }
}

/** Call `act` soon, but not more often than every `pause` milliseconds, however often it is asked. */
export function useCalm(act, pause) {
  const state = useRef({ timer: 0, last: 0, act });
  state.current.act = act;
  useEffect(() => () => clearTimeout(state.current.timer), []);
  return useCallback(() => {
    const held = state.current;
    if (held.timer) return;
    const wait = Math.max(0, held.last + pause - Date.now());
    held.timer = setTimeout(() => {
      held.timer = 0;
      held.last = Date.now();
      held.act();
    }, wait);
  }, [pause]);
}

/** The time now, anew every `every` milliseconds; 0 stops it. */
export function useNow(every = 1000) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (!every) return undefined;
    const timer = setInterval(() => setNow(Date.now()), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}
