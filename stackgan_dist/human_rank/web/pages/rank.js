// Ranking sets of pictures by click, drag or keys. The server knows where the rater is; this page only asks and shows.

import { $, ask, element, say } from "./page.js";

// Where there is no mouse, there is hardly a keyboard.
const touch = matchMedia("(hover: none) and (pointer: coarse)").matches;
const here = location.pathname.replace(/\/$/, "");
const letter = (slot) => String.fromCharCode(65 + slot);
let turn = null;
let places = []; // places[p] is the slot that is ranked p-th, or null
let tied = []; // tied[p]: the p-th shares its place with the one before it, where ties are asked for
let busy = false;

function pictures(slot) {
  return element(
    "span",
    { className: "pictures" },
    ...Array.from({ length: turn.images }, (_, number) => {
      const image = element("img", { src: picture(turn.position, slot), alt: "", draggable: false });
      // The file is one row of squares; each cell shows one of them.
      image.style.objectPosition = turn.images > 1 ? `${(100 * number) / (turn.images - 1)}% 0` : "0 0";
      return element("span", { className: "cell" }, image);
    }),
  );
}

const picture = (position, slot) => `${here}/pictures/${position}/${slot}.png`;

function show(next) {
  turn = next;
  places = Array(turn.sets).fill(null);
  tied = Array(turn.sets).fill(false);
  $("progress").max = turn.total;
  $("progress").value = turn.position;
  $("undo").hidden = turn.position === 0;
  const done = turn.sentence === null;
  $("count").textContent = done ? `${turn.total} of ${turn.total}` : `${turn.position + 1} of ${turn.total}`;
  $("question").hidden = $("tray").hidden = done;
  $("done").hidden = !done;
  $("sets").replaceChildren();
  $("places").replaceChildren();
  $("completion").hidden = !turn.code;
  $("code").textContent = turn.code ?? "";
  if (done) {
    // The run that the same server has, if any: something to go on with.
    ask("GET", "../about").then((about) => ($("next").hidden = !about.run), () => {});
    return;
  }
  $("prompt").textContent = turn.prompt;
  $("sentence").textContent = turn.sentence;
  for (let slot = 0; slot < turn.sets; slot++) {
    const set = element(
      "button",
      { className: "set", type: "button" },
      element("span", { className: "letter" }, letter(slot)),
      pictures(slot),
      element("span", { className: "grip", "aria-hidden": "true", title: "Drag to a place" }),
      element("span", { className: "badge" }),
    );
    set.dataset.slot = slot;
    $("sets").append(element("li", {}, set));
  }
  for (let place = 0; place < turn.sets; place++) {
    const label = place === 0 ? "best" : place === turn.sets - 1 ? "worst" : "";
    const button = element(
      "button",
      { className: "place", type: "button" },
      element("span", { className: "number" }, String(place + 1)),
      element("span", { className: "chip" }),
      element("span", { className: "label" }, label),
    );
    button.dataset.place = place;
    const tie = element("button", { className: "tie quiet", type: "button", title: "Equally good (=)" }, "=");
    tie.dataset.tie = place;
    $("places").append(element("li", {}, ...(turn.ties && place > 0 ? [tie] : []), button));
  }
  paint();
  window.scrollTo(0, 0);
  $("sentence").focus({ preventScroll: true });
  if (turn.position + 1 < turn.total)
    for (let slot = 0; slot < turn.sets; slot++) new Image().src = picture(turn.position + 1, slot);
}

function paint() {
  for (const set of document.querySelectorAll(".set")) {
    const slot = Number(set.dataset.slot);
    const place = places.indexOf(slot);
    set.classList.toggle("placed", place >= 0);
    set.querySelector(".badge").textContent = place >= 0 ? place + 1 : "";
    set.setAttribute("aria-label", `Set ${letter(slot)}, ${place >= 0 ? `in place ${place + 1}` : "not placed yet"}`);
  }
  for (const button of document.querySelectorAll(".place")) {
    const place = Number(button.dataset.place);
    const slot = places[place];
    button.classList.toggle("filled", slot !== null);
    button.querySelector(".chip").textContent = slot === null ? "" : letter(slot);
    button.setAttribute("aria-label", `Place ${place + 1}: ${slot === null ? "empty" : `set ${letter(slot)}, take it back`}`);
  }
  for (const tie of document.querySelectorAll(".tie")) {
    const place = Number(tie.dataset.tie);
    tie.setAttribute("aria-pressed", String(tied[place]));
    tie.setAttribute("aria-label", `Places ${place} and ${place + 1} are equally good`);
  }
  const complete = places.every((slot) => slot !== null);
  $("confirm").disabled = !complete || busy;
  const next = places.indexOf(null);
  $("hint").textContent = complete
    ? touch
      ? "Tap Confirm, or a place to take its set back."
      : `Press Enter to confirm, Backspace to change${turn.ties ? ", = where the last two are equally good" : ""}.`
    : next === 0
      ? touch
        ? "Tap the best set first, or drag sets to places by their dots."
        : `Click the best set, drag sets to places, or type their letters (A to ${letter(turn.sets - 1)}), best first.`
      : `Now the ${next === turn.sets - 1 ? "last" : "next best"} one.`;
  if (complete) $("confirm").focus({ preventScroll: true });
}

// Put a set in a place; whatever was there changes places with it.
function put(slot, place) {
  const before = places.indexOf(slot);
  if (before >= 0) places[before] = places[place];
  places[place] = slot;
  say(`Set ${letter(slot)} is in place ${place + 1}.`);
  paint();
}

function takeBack(place) {
  if (places[place] === null) return;
  say(`Set ${letter(places[place])} has no place now.`);
  places[place] = null;
  paint();
}

function toggle(slot) {
  const place = places.indexOf(slot);
  if (place >= 0) takeBack(place);
  else put(slot, places.indexOf(null));
  // Of two, the better one says it all.
  if (turn.sets === 2 && place < 0 && places.includes(null)) put(1 - slot, places.indexOf(null));
}

function toggleTie(place) {
  tied[place] = !tied[place];
  say(tied[place] ? `Places ${place} and ${place + 1} are equally good.` : `Place ${place} is better than ${place + 1}.`);
  paint();
}

// Slots from best to worst; those that share a place in a list of their own.
function ranking() {
  if (!turn.ties) return places;
  return places.reduce((sets, slot, place) => {
    if (place > 0 && tied[place]) sets.at(-1).push(slot);
    else sets.push([slot]);
    return sets;
  }, []);
}

async function send(work, after) {
  if (busy) return;
  busy = true;
  $("confirm").disabled = $("undo").disabled = true;
  try {
    show(await work());
    say(after);
  } catch (error) {
    if (error.status === 409) {
      await ask("GET", `${here}/turn`).then(show, () => {});
      say("This was ranked in another tab already; here is where you are.");
    } else {
      say(error.message, true);
    }
  } finally {
    busy = false;
    $("undo").disabled = false;
    if (turn && turn.sentence !== null) paint();
  }
}

const vote = () =>
  send(() => ask("PUT", `${here}/votes/${turn.position}`, { ranking: ranking() }), `Stored.`);
const undo = () =>
  send(() => ask("DELETE", `${here}/votes/${turn.position - 1}`), "Your last answer was taken back; rank it again.");

$("confirm").addEventListener("click", vote);
$("undo").addEventListener("click", undo);
$("sets").addEventListener("click", (event) => {
  const set = event.target.closest(".set");
  if (set && !dragged) toggle(Number(set.dataset.slot));
});
$("places").addEventListener("click", (event) => {
  const tie = event.target.closest(".tie");
  if (tie) toggleTie(Number(tie.dataset.tie));
  const place = event.target.closest(".place");
  if (place && !dragged) takeBack(Number(place.dataset.place));
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !turn || event.target.tagName === "INPUT") return;
  if (event.key.toLowerCase() === "z" || (event.key === "Backspace" && places.every((slot) => slot === null))) {
    if (turn.position > 0) undo();
    event.preventDefault();
  } else if (turn.sentence === null) {
    return;
  } else if (event.key === "Backspace") {
    takeBack(places.findLastIndex((slot) => slot !== null));
    event.preventDefault();
  } else if (event.key === "=" && turn.ties) {
    const filled = places.filter((slot) => slot !== null).length;
    if (filled > 1) toggleTie(filled - 1);
  } else if (event.key.length === 1) {
    const slot = event.key.toUpperCase().charCodeAt(0) - 65;
    const focused = document.activeElement.closest?.(".set");
    const place = Number(event.key) - 1;
    if (slot >= 0 && slot < turn.sets) {
      if (!places.includes(slot)) toggle(slot);
    } else if (focused && place >= 0 && place < turn.sets) {
      put(Number(focused.dataset.slot), place);
    }
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const sets = [...document.querySelectorAll(".set")];
    const now = sets.indexOf(document.activeElement);
    const step = event.key === "ArrowDown" ? 1 : -1;
    sets[now < 0 ? 0 : (now + step + sets.length) % sets.length].focus();
    event.preventDefault();
  }
});

// Dragging: with a mouse from anywhere on a set, with a finger from its grip, so that the rest scrolls the page.
let dragged = false;

document.addEventListener("pointerdown", (event) => {
  dragged = false;
  const source = event.target.closest(".set, .place.filled");
  if (!source || event.button !== 0 || busy) return;
  if (event.pointerType !== "mouse" && source.matches(".set") && !event.target.closest(".grip")) return;
  const slot = source.matches(".set") ? Number(source.dataset.slot) : places[Number(source.dataset.place)];
  let ghost = null;
  let over = null;

  const move = (moved) => {
    if (moved.pointerId !== event.pointerId) return;
    if (!ghost) {
      if (Math.hypot(moved.clientX - event.clientX, moved.clientY - event.clientY) < 6) return;
      dragged = true;
      ghost = element("div", { className: "ghost" }, element("span", { className: "letter" }, letter(slot)), pictures(slot));
      document.body.append(ghost);
      document.body.classList.add("dragging");
    }
    ghost.style.transform = `translate(${moved.clientX}px, ${moved.clientY}px) translate(-50%, -50%)`;
    over?.classList.remove("over");
    over = document.elementFromPoint(moved.clientX, moved.clientY)?.closest(".place") ?? null;
    over?.classList.add("over");
  };
  const end = (ended) => {
    if (ended.pointerId !== event.pointerId) return;
    for (const [kind, listener] of listeners) document.removeEventListener(kind, listener);
    ghost?.remove();
    document.body.classList.remove("dragging");
    over?.classList.remove("over");
    if (ended.type === "pointerup" && over) put(slot, Number(over.dataset.place));
  };
  const listeners = [["pointermove", move], ["pointerup", end], ["pointercancel", end]];
  for (const [kind, listener] of listeners) document.addEventListener(kind, listener);
});

$("link").value = location.href;
$("copy").addEventListener("click", async () => {
  $("link").select();
  await navigator.clipboard?.writeText($("link").value).catch(() => {});
  $("copy").textContent = "Copied";
});

try {
  show(await ask("GET", `${here}/turn`));
} catch (error) {
  say(error.message, true);
}
