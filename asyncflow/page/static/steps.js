// What the counts of a step mean. Pure.

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
