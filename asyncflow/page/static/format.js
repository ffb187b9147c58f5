// Numbers, times and names as people read them. Pure: no document, no network.

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;

/** Seconds as text: 0.8 ms, 12 ms, 3.25 s, 4 min 05 s, 2 h 10 min, 3 d 4 h. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  const all = Math.max(0, seconds);
  if (all === 0) return "0 s";
  if (all < 0.00095) return `${Math.max(1, Math.round(all * 1e6))} µs`;
  if (all < 0.9995) return `${all < 0.00995 ? (all * 1e3).toFixed(1) : Math.round(all * 1e3)} ms`;
  if (all < 59.95) return `${all < 9.995 ? all.toFixed(2) : all.toFixed(1)} s`;
  const whole = Math.round(all);
  if (whole < HOUR) return `${Math.floor(whole / MINUTE)} min ${pad(whole % MINUTE)} s`;
  if (whole < DAY) return `${Math.floor(whole / HOUR)} h ${pad(Math.floor((whole % HOUR) / MINUTE))} min`;
  return `${Math.floor(whole / DAY)} d ${Math.floor((whole % DAY) / HOUR)} h`;
}

/** Seconds of something that goes on: whole ones, so that the text does not flicker. */
export function soFar(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  return seconds < MINUTE ? `${Math.max(0, Math.floor(seconds))} s` : duration(Math.floor(seconds));
}

/** A moment, given as ISO 8601, as the time since: "12 s ago", "3 h ago", "5 Mar". */
export function ago(iso, now) {
  if (!iso) return "–";
  const then = new Date(iso);
  const seconds = (now - then.getTime()) / 1000;
  if (seconds < 5) return "just now";
  if (seconds < MINUTE) return `${Math.floor(seconds)} s ago`;
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} min ago`;
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)} h ago`;
  if (seconds < 7 * DAY) return `${Math.floor(seconds / DAY)} d ago`;
  const options = { day: "numeric", month: "short" };
  if (then.getFullYear() !== new Date(now).getFullYear()) options.year = "numeric";
  return then.toLocaleDateString(undefined, options);
}

/** A moment in full, in the browser's own zone, for a title. */
export function moment(iso) {
  if (!iso) return "";
  const time = new Date(iso);
  return Number.isNaN(time.getTime()) ? String(iso) : `${time.toLocaleString()} (${iso})`;
}

/** Milliseconds since a run's start: 0.812, 1:02.5, 2:03:04. `exact` keeps the milliseconds. */
export function offset(milliseconds, exact = true) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  const seconds = milliseconds / 1000;
  const fraction = exact ? seconds % 60 : Math.floor(seconds % 60);
  const text = exact ? fraction.toFixed(3) : String(fraction);
  if (seconds < MINUTE) return exact ? text : `${text} s`;
  const padded = fraction < 10 ? `0${text}` : text;
  const minutes = Math.floor(seconds / MINUTE) % 60;
  if (seconds < HOUR) return `${minutes}:${padded}`;
  return `${Math.floor(seconds / HOUR)}:${pad(minutes)}:${padded}`;
}

/** Bytes as text. */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** A whole number with thin spaces between thousands. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  return String(value).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/** "1 task", "3 tasks". */
export function many(count, word) {
  return `${number(count)} ${word}${count === 1 ? "" : "s"}`;
}

/** Foreach indexes as text: [3][7]. */
export function indexes(path) {
  return (path ?? []).map((index) => `[${index}]`).join("");
}

/** The part of a traceback that people read first: its last line. */
export function firstLine(text) {
  return String(text ?? "").split("\n", 1)[0];
}

// What a terminal would do, and a page cannot: colours, moves, titles.
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** Output as text that can be shown: without a terminal's escapes, control characters as symbols. */
export function printable(text) {
  const plain = String(text ?? "").replace(ESCAPES, "");
  const line = plain.replace(/\r+$/, "");
  const last = line.lastIndexOf("\r"); // a progress bar writes over itself: its last state counts
  return line.slice(last + 1).replace(CONTROLS, (found) => {
    const code = found.charCodeAt(0);
    return code < 32 ? String.fromCharCode(0x2400 + code) : "\ufffd";
  });
}

/** A text of several lines that can be shown. */
export function printableLines(text) {
  return String(text ?? "").split("\n").map(printable).join("\n");
}

function pad(value) {
  return String(value).padStart(2, "0");
}
