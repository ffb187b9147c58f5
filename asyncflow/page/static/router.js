// Where we are, in the address behind "#": a path and a query. Every state of a view is there, so a
// link shows what its sender saw, and "back" goes back.
//
//   #/runs?flow=Train&status=failed      #/runs/Train/17?view=log&find=epoch
//   #/runs/Train/17/fit/2                #/diff?a=Train/17&b=Train/18

import { useEffect, useState } from "./lib.js";

/** The path's parts and the query, each a list of texts by name. */
export function parse(hash) {
  const text = hash.replace(/^#\/?/, "");
  const at = text.indexOf("?");
  const path = at < 0 ? text : text.slice(0, at);
  const query = {};
  for (const [name, value] of new URLSearchParams(at < 0 ? "" : text.slice(at + 1))) {
    (query[name] ??= []).push(value);
  }
  return { parts: path.split("/").filter(Boolean).map(decoded), query };
}

/** The address of a place. Values may be text, numbers or lists; empty ones are left out. */
export function address(parts, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") search.append(name, each);
    }
  }
  const text = search.toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** The address of a run, a step or a task that a pathspec names. */
export function addressOf(pathspec, query) {
  return address(["runs", ...pathspec.split("/")], query);
}

/** The address of the same place with some of its query changed; "" and null take a name away. */
export function changed(route, query) {
  return address(route.parts, { ...route.query, ...query });
}

/** Go there. `replace` leaves no step to go back to: for what changes with every key. */
export function go(to, { replace = false } = {}) {
  if (to === (location.hash || "#/")) return;
  if (replace) {
    history.replaceState(null, "", to);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = to.slice(1);
  }
}

/** The first value of a name in the query, or the given one. */
export function one(route, name, otherwise = "") {
  return route.query[name]?.[0] ?? otherwise;
}

/** All values of a name in the query. */
export function all(route, name) {
  return route.query[name] ?? [];
}

/** The place where we are, anew whenever it changes. */
export function useRoute() {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const look = () => setRoute(parse(location.hash));
    addEventListener("hashchange", look);
    return () => removeEventListener("hashchange", look);
  }, []);
  return route;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
