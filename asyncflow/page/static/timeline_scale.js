// Between a run's milliseconds and pixels, where idle times may be cut out. Pure.

/** `pieces` are [from, to, begin, end]: times in milliseconds, begin and end as parts of `width`. */
export class Scale {
  constructor(pieces, width) {
    this.pieces = pieces.length ? pieces : [[0, 1, 0, 1]];
    this.width = width;
  }

  /** Where a time is drawn; one that was cut out, at the edge of the cut. */
  x(time) {
    let edge = 0;
    for (const [from, to, begin, end] of this.pieces) {
      if (time < from) return begin * this.width;
      if (time <= to) {
        const part = to > from ? (time - from) / (to - from) : 0;
        return (begin + part * (end - begin)) * this.width;
      }
      edge = end;
    }
    return edge * this.width;
  }

  /** The time at a place. */
  time(x) {
    const share = Math.min(Math.max(x / this.width, 0), 1);
    let latest = this.pieces[0][0];
    for (const [from, to, begin, end] of this.pieces) {
      if (share < begin) return latest;
      if (share <= end) return from + (end > begin ? (share - begin) / (end - begin) : 0) * (to - from);
      latest = to;
    }
    return latest;
  }

  /** Times for the axis, at least `apart` pixels from each other, as [time, x]. */
  ticks(apart = 90) {
    const found = [];
    let last = -Infinity;
    for (const [from, to, begin, end] of this.pieces) {
      const pixels = (end - begin) * this.width;
      if (pixels < 8) continue;
      const pace = step(((to - from) / pixels) * apart);
      for (let time = Math.ceil(from / pace) * pace; time <= to; time += pace) {
        const x = this.x(time);
        if (x - last >= apart * 0.8) {
          found.push([time, x, pace]);
          last = x;
        }
      }
    }
    return found;
  }

  /** Where something was cut out, as x. */
  cuts() {
    return this.pieces.slice(1).map(([, , begin]) => begin * this.width);
  }
}

const STEPS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3,
  900e3, 1800e3, 3600e3, 7200e3, 14400e3, 21600e3, 43200e3, 86400e3,
];

function step(least) {
  return STEPS.find((each) => each >= least) ?? Math.ceil(least / 86400e3) * 86400e3;
}

/** A time on the axis, as exact as its neighbours need. */
export function tick(time, pace) {
  const seconds = time / 1000;
  const digits = pace < 10 ? 3 : pace < 100 ? 2 : pace < 1000 ? 1 : 0;
  if (seconds < 60) return `${seconds.toFixed(digits)} s`;
  const minutes = Math.floor(seconds / 60);
  const rest = (seconds % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  if (minutes < 60) return `${minutes}:${rest}`;
  const hours = Math.floor(minutes / 60);
  const clock = `${String(minutes % 60).padStart(2, "0")}`;
  return pace < 60e3 ? `${hours}:${clock}:${rest}` : `${hours} h ${clock}`;
}

/** Bars in rows, so that none lies on another; steps one below the other, in their order. */
export function rowsOf(bars, now) {
  const byStep = new Map();
  const sorted = [...bars].sort((a, b) => a[1] - b[1] || a[3] - b[3]);
  for (const bar of sorted) {
    const rows = byStep.get(bar[1]) ?? { ends: [], bars: [] };
    byStep.set(bar[1], rows);
    const begin = bar[3];
    let row = rows.ends.findIndex((end) => end <= begin);
    if (row < 0) row = rows.ends.length;
    rows.ends[row] = bar[4] ?? now;
    rows.bars.push([row, bar]);
  }
  return byStep;
}
