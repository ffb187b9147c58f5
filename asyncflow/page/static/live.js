// A run, kept up to date by its events: what it is, and who wants to hear of them.

import { useCallback, useEffect, useMemo, useRef, useState } from "./lib.js";
import { url, useCalm, useData, Watch } from "./api.js";
import { countEvents } from "./steps.js";

const CALM = 50; // milliseconds between two changes of what is shown, however many events come
const AGAIN = 1200; // milliseconds between two looks at all of a run that changes

/**
 * A run and what is known of it: `data` as of `api/runs/FLOW/RUN`, with the counts of the events that
 * came since; `version`, which goes up when lists should be asked for again; `link`: "live", "lost"
 * or "ended"; `listen(heard)`, which gives each batch of events and returns how to stop.
 */
export function useRun(flow, id) {
  const address = url(["runs", flow, id]);
  const { data, error, reload } = useData(address, `${flow}/${id}`);
  const [steps, setSteps] = useState(null);
  const [version, setVersion] = useState(0);
  const [link, setLink] = useState("ended");
  const listeners = useRef(new Set());
  const counted = useRef(0);

  useEffect(() => {
    if (!data) return;
    // The answer may be older than events that have come: those stay counted until the next one.
    if (data.seq >= counted.current || !steps) setSteps(data.steps);
  }, [data]);

  const again = useCalm(() => {
    reload();
    setVersion((old) => old + 1);
  }, AGAIN);

  const isLive = data?.run?.status === "running";
  useEffect(() => {
    if (!isLive) return undefined;
    counted.current = data.seq;
    const tell = calmly((events) => {
      setSteps((old) => old && countEvents(old, events));
      for (const heard of listeners.current) heard(events);
      again();
    });
    const watch = new Watch((since) => url(["watch"], { run: data.run.pathspec, since }), {
      since: data.seq,
      heard: ({ events }) => {
        counted.current = Math.max(counted.current, events[events.length - 1]?.seq ?? 0);
        tell(events);
      },
      ended: () => again(),
      changed: setLink,
    });
    return () => {
      watch.close();
      tell.stop();
    };
  }, [isLive, address]);

  const listen = useCallback((heard) => {
    listeners.current.add(heard);
    return () => listeners.current.delete(heard);
  }, []);
  const live = useMemo(() => ({ listen }), [listen]);
  return { data, error, reload, steps: steps ?? data?.steps ?? [], version, link: isLive ? link : "ended", live };
}

/** Calls `act` with all that came: at once after a pause, else together every `CALM` milliseconds. */
function calmly(act) {
  let waiting = [];
  let timer = 0;
  const flush = () => {
    timer = 0;
    if (!waiting.length) return;
    const events = waiting;
    waiting = [];
    timer = setTimeout(flush, CALM);
    act(events);
  };
  const add = (events) => {
    waiting = waiting.concat(events);
    if (!timer) flush();
  };
  add.stop = () => clearTimeout(timer);
  return add;
}
