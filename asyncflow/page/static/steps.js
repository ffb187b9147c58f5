// What the counts of a step mean, kept up to date by the events that come. Pure.

/** The one state that tells most about a step. */
export function stateOf(step) {
  if (step.failed) return "failed";
  if (step.interrupted) return "interrupted";
  if (step.running) return "running";
  if (step.waiting) return "waiting";
  if (step.cancelled) return "cancelled";
  const done = step.succeeded + step.cloned;
  if (!step.begun && !done) return "pending";
  if (step.expected !== null && done < step.expected) return "running";
  return step.cloned && !step.succeeded ? "cloned" : "succeeded";
}

/** A step's counts as the parts of a progress bar. */
export function partsOf(step) {
  return {
    done: step.succeeded,
    taken: step.cloned,
    failed: step.failed,
    running: step.running + step.waiting,
    stopped: step.cancelled + step.interrupted,
    total: step.expected,
  };
}

/** Steps with the counts of these events added: until the server is asked again. */
export function countEvents(steps, events) {
  const changed = new Map();
  const of = (name) => {
    if (!changed.has(name)) {
      const found = steps.find((step) => step.step === name);
      if (!found) return null;
      changed.set(name, { ...found });
    }
    return changed.get(name);
  };
  for (const event of events) {
    const step = event.step ? of(event.step) : null;
    if (step) countOne(step, event);
  }
  if (!changed.size) return steps;
  return steps.map((step) => grown(changed.get(step.step) ?? step));
}

function countOne(step, event) {
  switch (event.type) {
    case "TaskStarted":
      step.running += 1;
      if (event.attempt) step.waiting = Math.max(0, step.waiting - 1);
      else step.begun += 1;
      step.first ??= event.at ?? null;
      break;
    case "TaskSucceeded":
      step.running = Math.max(0, step.running - 1);
      step.succeeded += 1;
      step.last = event.at ?? step.last;
      step.seconds += event.seconds ?? 0;
      break;
    case "TaskCloned":
      step.cloned += 1;
      break;
    case "TaskFailed":
      if (event.caught) {
        step.caught += 1; // the next event says how it ended
        break;
      }
      step.running = Math.max(0, step.running - 1);
      if (event.will_retry) {
        step.retried += 1;
        step.waiting += 1;
      } else {
        step.failed += 1;
      }
      break;
    default:
  }
}

function grown(step) {
  const seen = step.running + step.waiting + step.succeeded + step.failed + step.cloned;
  return step.expected !== null && step.expected < seen ? { ...step, expected: seen } : step;
}

/** How the counts of all steps add up. */
export function sumOf(steps) {
  const sum = { done: 0, taken: 0, failed: 0, running: 0, stopped: 0, total: 0 };
  for (const step of steps) {
    const parts = partsOf(step);
    for (const name of Object.keys(sum)) sum[name] += parts[name] ?? 0;
    if (parts.total === null) sum.total += step.begun;
  }
  return sum;
}
