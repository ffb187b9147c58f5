// A run, kept up to date by its events: what it is, and who wants to hear of them.

import { useCallback, useEffect, useMemo, useRef, useState } from "./lib.js";
import { url, useCalm, useData, Watch } from "./api.js";

const CALM = 50; // milliseconds between two changes of what is shown, however much comes
const AGAIN = 1200; // milliseconds between two looks at all of a run that changes

/**
 * A run and what is known of it: `data` as of `api/runs/FLOW/RUN`; `steps`, with the counts that have
 * come since; `version`, which goes up when lists should be asked for again; `link`: "live", "lost" or
 * "ended"; `listen(heard)`, which gives each batch of events and returns how to stop. Events are those
 * that `wish` names, as `type`, `step` and `task` of `api/watch`: a view that shows none gets none.
 */
export function useRun(flow, id, wish = {}) {
  const address = url(["runs", flow, id]);
  const found = useData(address, `${flow}/${id}`);
  const timed = useData(lacksTimes(found.data) ? url(["runs", flow, id], { times: 1 }) : "");
  const { error, reload } = found;
  const data = lacksTimes(found.data) ? (timed.data ?? found.data) : found.data;
  const [counts, setCounts] = useState(NONE);
  const [version, setVersion] = useState(0);
  const [link, setLink] = useState("ended");
  const listeners = useRef(new Set());
  const last = useRef({ key: "", seq: 0 });

  const again = useCalm(() => {
    reload();
    setVersion((old) => old + 1);
  }, AGAIN);

  const isLive = data?.run?.status === "running";
  const wished = JSON.stringify(wish);
  useEffect(() => {
    if (!isLive) return undefined;
    if (last.current.key !== address) last.current = { key: address, seq: data.seq };
    const tell = calmly((messages) => {
      setCounts((old) => counted(old, address, messages));
      const events = messages.flatMap((message) => message.events);
      if (events.length) for (const heard of listeners.current) heard(events);
      again();
    });
    const watch = new Watch((since) => url(["watch"], { run: data.run.pathspec, since, steps: 1, ...wish }), {
      since: last.current.seq,
      heard: (message) => tell([message]),
      ended: () => again(),
      changed: setLink,
    });
    return () => {
      last.current.seq = watch.last; // another view goes on from here
      watch.close();
      tell.stop();
    };
  }, [isLive, address, wished]);

  const listen = useCallback((heard) => {
    listeners.current.add(heard);
    return () => listeners.current.delete(heard);
  }, []);
  const live = useMemo(() => ({ listen }), [listen]);
  const steps = useMemo(() => newest(data, counts.key === address ? counts.rows : NONE.rows), [data, counts]);
  return { data, error, reload, steps, version, link: isLive ? link : "ended", live };
}

/** Whether a run has ended of which the first answer lacks the times: to read them takes long, so they are shown later. */
function lacksTimes(data) {
  const isOver = data?.run && data.run.status !== "running" && !data.problem;
  return Boolean(isOver && data.steps?.some((step) => step.begun && step.seconds === null));
}

const NONE = { key: "", rows: new Map() };

/** The latest counts of each step, and as of which event they are. */
function counted(old, key, messages) {
  const rows = new Map(old.key === key ? old.rows : []);
  for (const { steps = [], seq } of messages) for (const row of steps) rows.set(row.step, { seq, row });
  return { key, rows };
}

/** The steps of an answer, with the counts that are newer than it. */
function newest(data, rows) {
  if (!data?.steps) return [];
  if (!rows.size || data.run?.status !== "running") return data.steps;
  return data.steps.map((step) => {
    const found = rows.get(step.step);
    if (!found || found.seq < data.seq) return step;
    const merged = { ...step, ...found.row };
    return merged.expected !== null && merged.expected < merged.begun ? { ...merged, expected: merged.begun } : merged;
  });
}

/** Calls `act` with all that came: at once after a pause, else together every `CALM` milliseconds. */
function calmly(act) {
  let waiting = [];
  let timer = 0;
  const flush = () => {
    timer = 0;
    if (!waiting.length) return;
    const all = waiting;
    waiting = [];
    timer = setTimeout(flush, CALM);
    act(all);
  };
  const add = (more) => {
    waiting = waiting.concat(more);
    if (!timer) flush();
  };
  add.stop = () => clearTimeout(timer);
  return add;
}
