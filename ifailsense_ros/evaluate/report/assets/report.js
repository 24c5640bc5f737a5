"use strict";
(() => {
  const form = document.querySelector(".filters");
  const list = document.querySelector(".cards");
  const dialog = document.querySelector("dialog");
  const viewer = dialog.querySelector(".viewer");
  const cards = [...list.children];
  if (typeof dialog.showModal !== "function") return; // the page is readable without the rest
  document.documentElement.classList.add("js");

  const text = (card) =>
    [...card.querySelectorAll(".instruction, .truth, .more p")].map((p) => p.textContent).join(" ");
  const words = new Map(cards.map((card) => [card, text(card).toLowerCase()]));
  // Out of the page until an episode is opened: a thousand tables of votes make every filter slow.
  const votes = new Map(cards.map((card) => [card, card.querySelector(".more")]));
  for (const more of votes.values()) more.remove();
  const button = (card) => card.querySelector(".opener");
  let visible = cards;
  let current = null; // the card that Tab leads to, and whose episode is open

  // --- filters
  const value = (name) => (form.elements[name] ? form.elements[name].value : "");
  const sure = (card, detector) => Number(card.dataset.sure.split(",")[detector]);

  function fits(card, detector, wanted) {
    const d = card.dataset;
    const worth = d.worths[detector];
    return (
      (!wanted.truth || d.truth === wanted.truth) &&
      (!wanted.outcome || d.outcomes[detector] === wanted.outcome) &&
      (!wanted.worth ||
        (wanted.worth === "differ" ? "differs" in d : wanted.worth.includes(worth))) &&
      (!wanted.category || d.category === wanted.category) &&
      (!wanted.kind || d.kind === wanted.kind) &&
      wanted.words.every((word) => words.get(card).includes(word))
    );
  }

  function sorted(shown, detector, order) {
    const wrong = (card) => ("ma".includes(card.dataset.worths[detector]) ? 1 : 0);
    const rules = {
      mistakes: (a, b) => wrong(b) - wrong(a) || sure(b, detector) - sure(a, detector),
      doubt: (a, b) => sure(a, detector) - sure(b, detector),
      sure: (a, b) => sure(b, detector) - sure(a, detector),
    };
    return order in rules ? [...shown].sort(rules[order]) : shown;
  }

  function apply() {
    const detector = Number(value("detector") || 0);
    const wanted = { words: value("words").toLowerCase().split(/\s+/).filter(Boolean) };
    for (const name of ["truth", "outcome", "worth", "category", "kind"]) wanted[name] = value(name);
    visible = sorted(cards.filter((card) => fits(card, detector, wanted)), detector, value("order"));
    const kept = new Set(visible);
    for (const card of [...list.children]) if (!kept.has(card)) card.remove();
    let next = list.firstElementChild; // only what is not in its place is moved
    for (const card of visible) {
      if (card === next) next = next.nextElementSibling;
      else list.insertBefore(card, next);
    }
    form.elements.count.value = `${visible.length} of ${cards.length} episodes`;
    document.querySelector(".empty").hidden = visible.length > 0;
    if (!kept.has(current)) rove(visible[0] || null);
  }

  let waiting = 0;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(apply, 120);
  });
  form.addEventListener("reset", () => setTimeout(apply)); // the fields are empty only then
  form.addEventListener("submit", (event) => event.preventDefault());

  // --- cards by keyboard: one stop for Tab, arrows from there
  function rove(card) {
    if (current) button(current).tabIndex = -1;
    current = card;
    if (current) button(current).tabIndex = 0;
  }

  function columns() {
    const top = visible[0].offsetTop;
    const count = visible.findIndex((card) => card.offsetTop !== top);
    return count < 0 ? visible.length : count;
  }

  list.addEventListener("keydown", (event) => {
    const at = visible.indexOf(event.target.closest(".card"));
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
    let to;
    if (event.key in steps) to = at + steps[event.key];
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = visible.length - 1;
    else return;
    event.preventDefault();
    if (visible[to]) {
      rove(visible[to]);
      button(current).focus();
      current.scrollIntoView({ block: "nearest" });
    }
  });

  // --- one episode, large
  function show(card) {
    rove(card);
    dialog.querySelector("h2").textContent = card.querySelector(".instruction").textContent;
    dialog.querySelector(".place").textContent = `${visible.indexOf(card) + 1} of ${visible.length}`;
    const more = votes.get(card).cloneNode(true);
    more.querySelector("summary").remove();
    const parts = [".shots", ".truth", ".verdicts"].map((part) =>
      card.querySelector(part).cloneNode(true)
    );
    viewer.replaceChildren(...parts, ...more.childNodes);
    for (const image of viewer.querySelectorAll("img")) image.loading = "eager";
    const at = visible.indexOf(card);
    dialog.querySelector('[data-go="-1"]').disabled = at <= 0;
    dialog.querySelector('[data-go="1"]').disabled = at < 0 || at === visible.length - 1;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  function go(step) {
    const next = visible[visible.indexOf(current) + step];
    if (next) show(next);
    // A disabled button loses the focus, and with it the keyboard.
    if (!dialog.contains(document.activeElement) || document.activeElement.disabled) viewer.focus();
  }

  list.addEventListener("click", (event) => {
    const opener = event.target.closest(".opener");
    if (opener) show(opener.closest(".card"));
  });
  dialog.addEventListener("click", (event) => {
    const pressed = event.target.closest("button");
    if (event.target === dialog || (pressed && "close" in pressed.dataset)) dialog.close();
    else if (pressed) go(Number(pressed.dataset.go));
  });
  dialog.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.altKey || event.ctrlKey || event.metaKey || !(event.key in steps)) return;
    event.preventDefault();
    go(steps[event.key]);
  });
  dialog.addEventListener("close", () => {
    viewer.replaceChildren();
    if (from) from.focus();
    else if (current) button(current).focus();
    from = null;
  });

  // A link to an episode opens it, also where a filter hides it.
  let from = null;
  function follow(hash) {
    const card = cards.find((one) => `#${one.id}` === hash);
    if (!card) return false;
    if (!card.isConnected) {
      form.reset();
      apply();
    }
    show(card);
    return true;
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#e"]');
    if (link && follow(link.hash)) {
      from = link;
      event.preventDefault();
    }
  });
  window.addEventListener("hashchange", () => follow(location.hash));

  for (const card of cards) button(card).tabIndex = -1;
  apply();
  follow(location.hash);
})();
