// A long list of which only what is seen is in the document.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";

const BEYOND = 12; // rows above and below the window, so that a quick scroll shows no gap

/** `draw(item, index)` gives a row that is `height` pixels high. The page itself scrolls. */
export function Windowed({ items, height, draw, label, className = "" }) {
  const ref = useRef(null);
  const [range, setRange] = useState([0, 60]);
  useLayoutEffect(() => {
    const look = () => {
      const box = ref.current?.getBoundingClientRect();
      if (!box) return;
      const first = Math.max(0, Math.floor(-box.top / height) - BEYOND);
      const last = Math.ceil((window.innerHeight - box.top) / height) + BEYOND;
      setRange((old) => (old[0] === first && old[1] === last ? old : [first, last]));
    };
    look();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => {
      removeEventListener("scroll", look);
      removeEventListener("resize", look);
    };
  }, [height, items.length]);
  const first = Math.min(range[0], Math.max(0, items.length - 1));
  const last = Math.min(items.length, Math.max(range[1], first + 1));
  return html`<div
    ref=${ref}
    class=${`windowed ${className}`}
    role="group"
    aria-label=${label}
    style=${`height:${items.length * height}px`}
  >
    <div style=${`transform:translateY(${first * height}px)`}>
      ${items.slice(first, last).map((item, place) => draw(item, first + place))}
    </div>
  </div>`;
}

/** Call `act` once the element comes into sight. */
export function useSeen(act) {
  const ref = useRef(null);
  useEffect(() => {
    const observer = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        observer.disconnect();
        act();
      }
    });
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return ref;
}
