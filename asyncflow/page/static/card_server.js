// The page of `asyncflow card server`: one frame for each card. What is new is posted into the frame.

const byPlace = new Map();
const main = document.getElementById("cards");
const empty = document.getElementById("empty");

function section(card) {
  const holder = document.createElement("section");
  const title = document.createElement("h2");
  const frame = document.createElement("iframe");
  title.textContent = card.label;
  frame.title = card.label;
  frame.setAttribute("sandbox", "allow-scripts allow-popups");
  frame.className = card.type === "html" ? "html" : "";
  frame.src = `/card/${card.place.split("/").map(encodeURIComponent).join("/")}`;
  holder.append(title, frame);
  return { holder, frame, version: card.version, isReady: false, isLate: false, place: card.place };
}

async function refresh(shown) {
  if (!shown.isReady) {
    shown.isLate = true;
    if (shown.frame.className === "html") shown.frame.src = shown.frame.getAttribute("src");
    return;
  }
  const answer = await fetch(`/drawing/${shown.place.split("/").map(encodeURIComponent).join("/")}`);
  if (answer.ok) shown.frame.contentWindow?.postMessage({ asyncflow: "card", card: await answer.json() }, "*");
}

addEventListener("message", (event) => {
  const shown = [...byPlace.values()].find((each) => each.frame.contentWindow === event.source);
  if (!shown) return;
  if (event.data?.asyncflow === "height") shown.frame.style.height = `${Math.min(Math.max(Number(event.data.height) || 0, 60), 20000)}px`;
  if (event.data?.asyncflow === "ready") {
    shown.isReady = true;
    if (shown.isLate) {
      shown.isLate = false;
      void refresh(shown);
    }
  }
});

function show(found) {
  document.getElementById("run").textContent = found.run || "Cards";
  document.title = found.run || "Cards";
  document.getElementById("status").textContent = found.status;
  empty.hidden = found.cards.length > 0;
  const places = new Set(found.cards.map((card) => card.place));
  for (const [place, shown] of byPlace) {
    if (!places.has(place)) {
      shown.holder.remove();
      byPlace.delete(place);
    }
  }
  let before = null;
  for (const card of found.cards) {
    let shown = byPlace.get(card.place);
    if (!shown) {
      shown = section(card);
      byPlace.set(card.place, shown);
      if (before) before.after(shown.holder);
      else main.prepend(shown.holder);
    } else if (shown.version !== card.version) {
      shown.version = card.version;
      void refresh(shown);
    }
    before = shown.holder;
  }
}

let seen = "";
for (;;) {
  try {
    const answer = await fetch(`/cards?seen=${encodeURIComponent(seen)}`);
    const found = await answer.json();
    seen = found.version;
    show(found);
  } catch {
    document.getElementById("status").textContent = "the server is gone";
    await new Promise((done) => setTimeout(done, 1000));
    seen = "";
  }
}
