"use strict";
// All text comes as JSON and goes into the page as text, never as markup.

const KEYS = { s: "success", f: "failure", u: "unsure" };
const WORDS = Object.values(KEYS);
const at = (id) => document.getElementById(id);

let episode = null; // what is shown
let shown = false; // whether its picture, or that there is none, can be seen
let counts = { total: 0 };
let next = null; // an episode without a label
let work = Promise.resolve(); // keys are handled one after the other, none is lost

async function ask(place, content) {
  const how = content === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(content),
  };
  let answer;
  try {
    answer = await fetch(place, how);
  } catch {
    throw new Error("`ifailsense annotate` does not answer: is it still running? What was saved stays saved.");
  }
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

function problem(text) {
  at("problem").textContent = text;
  at("problem").hidden = !text;
}

function say(text) {
  at("status").textContent = text;
}

function where() {
  // What a recording is called may say how it ended: it is named when that has been judged.
  const place = `${episode.number + 1} of ${counts.total}`;
  return episode.label === null ? place : `${place} · ${episode.path} · ${episode.key}`;
}

function draw() {
  const labelled = WORDS.reduce((sum, word) => sum + counts[word], 0);
  at("progress").max = counts.total;
  at("progress").value = labelled;
  at("counts").textContent =
    `${labelled} of ${counts.total}: ` + WORDS.map((word) => `${counts[word]} ${word}`).join(", ");
  for (const word of WORDS) {
    at(word).setAttribute("aria-pressed", String(episode !== null && episode.label === word));
    at(word).disabled = !shown || episode.unreadable && word !== "unsure";
  }
  at("where").textContent = episode === null ? "" : where();
  at("back").disabled = episode === null || episode.number === 0;
  at("forward").disabled = episode === null || episode.number === counts.total - 1;
}

function picture(number) {
  return new Promise((done) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => done(null);
    image.src = `picture/${number}`;
  });
}

async function show(number) {
  shown = false;
  at("verdict").hidden = true;
  at("ask").setAttribute("aria-expanded", "false");
  at("waiting").hidden = false;
  at("waiting").textContent = "loading";
  at("picture").hidden = true;
  episode = await ask(`api/episode/${number}`);
  next = episode.next;
  at("instruction").textContent = episode.instruction || "(no instruction)";
  draw();
  const image = await picture(number);
  if (image === null) {
    episode.unreadable = true;
    at("waiting").textContent = "its pictures cannot be read";
    await ask(`picture/${number}`).catch((error) => problem(error.message));
  } else {
    at("picture").src = image.src;
    at("picture").alt = `Keyframes of episode ${number + 1}: a row for each camera, time from left to right`;
    at("picture").hidden = false;
    at("waiting").hidden = true;
  }
  shown = true;
  draw();
  if (episode.next !== null) picture(episode.next); // the server keeps it
}

async function label(word) {
  // Nobody can judge what cannot be seen yet.
  if (!shown || at(word).disabled) return;
  const said = await ask("api/label", { number: episode.number, label: word });
  ({ counts, next } = said);
  episode.label = word;
  draw();
  const saved = `saved: episode ${episode.number + 1}, ${word}`;
  say(saved);
  if (next === null) say(`${saved}. All episodes have a label; end with Ctrl-C in the terminal.`);
  else await show(next);
}

async function undo() {
  const said = await ask("api/undo", {});
  ({ counts, next } = said);
  if (said.number === null) return say("there is nothing to undo");
  await show(said.number);
  say("undone");
}

async function verdict() {
  const box = at("verdict");
  if (!box.hidden) {
    box.hidden = true;
    at("ask").setAttribute("aria-expanded", "false");
    return;
  }
  say("asking");
  const said = await ask(`api/verdict/${episode.number}`);
  const lines = said.verdicts.map((v) => {
    const sure = v.p_success === null ? "" : `, p(success) ${v.p_success.toFixed(2)}`;
    const votes = v.votes.map(([source, vote]) => `${source} ${vote}`).join(", ");
    return [`${v.verdict}${sure}`, v.detail, votes && `votes: ${votes}`, v.detector].filter(Boolean).join(" · ");
  });
  if (said.data_says) lines.push(`the data say: ${said.data_says}`);
  if (!lines.length) lines.push("no detector was named (--detector or --results), and the data say nothing");
  box.replaceChildren(...lines.map((line) => {
    const p = document.createElement("p");
    p.textContent = line;
    return p;
  }));
  box.hidden = false;
  at("ask").setAttribute("aria-expanded", "true");
  say("");
}

async function go(to) {
  if (to >= 0 && to < counts.total) await show(to);
}

const WAYS = {
  back: () => go(episode.number - 1),
  forward: () => go(episode.number + 1),
  next: () => (next === null ? say("all episodes have a label") : show(next)),
  undo,
  ask: verdict,
};
const WAY_KEYS = { ArrowLeft: "back", ArrowRight: "forward", n: "next", z: "undo", Backspace: "undo", v: "ask" };

function queue(job) {
  work = work.then(async () => {
    problem("");
    await job();
  }).catch((error) => problem(error.message));
}

function press(id) {
  queue(WORDS.includes(id) ? () => label(id) : WAYS[id]);
}

document.addEventListener("keydown", (event) => {
  // A key held down must not label what comes next, and Ctrl-S is the browser's.
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const id = KEYS[key] || WAY_KEYS[key];
  if (!id) return;
  event.preventDefault();
  // What was shown when the key was pressed is what is meant.
  const meant = episode && shown ? episode.number : null;
  if (KEYS[key]) {
    if (meant !== null) queue(() => (episode.number === meant ? label(id) : undefined));
  } else press(id);
});
for (const id of [...WORDS, ...Object.keys(WAYS)]) {
  at(id).addEventListener("click", () => press(id));
}

queue(async () => {
  const state = await ask("api/state");
  ({ counts, next } = state);
  document.title = `Annotate: ${state.file}`;
  await show(next === null ? 0 : next);
  if (next === null) say("All episodes have a label; go through them with the arrows.");
});
