// The page: a conversation that streams, two panes, attention, alternatives, corrections.
// Whatever a person or a model says becomes text nodes, never markup.
"use strict";

const $ = (id) => document.getElementById(id);

/** An element with properties and children; strings become text. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** What a browser remembers; where it may not, nothing is remembered. */
const memory = {
  get(name, otherwise) {
    try { return JSON.parse(localStorage.getItem(`antiphon.${name}`)) ?? otherwise; } catch { return otherwise; }
  },
  set(name, value) {
    try { localStorage.setItem(`antiphon.${name}`, JSON.stringify(value)); } catch { /* private window */ }
  },
};

const state = { models: [], turns: [], conversation: null, going: null, pane: null, viewChosen: false, token: null };

// The server.

function token() {
  try { return state.token ?? sessionStorage.getItem("antiphon.token"); } catch { return state.token; }
}

async function call(path, { method = "POST", body, signal } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token()) headers.Authorization = `Bearer ${token()}`;
  const answer = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.status === 401) {
    await askForToken();
    return call(path, { method, body, signal });
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => null);
    throw Object.assign(new Error(told?.error?.message ?? `the server said ${answer.status}`), { status: answer.status });
  }
  return answer;
}

const json = async (path, options) => (await call(path, options)).json();

function askForToken() {
  const dialog = $("ask-token");
  if (token()) $("token-title").textContent = "That is not this server's token";
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.addEventListener("close", () => {
      if (dialog.returnValue !== "entered") return reject(new Error("without its token this server answers nothing; load the page again to enter it"));
      state.token = $("token").value;
      try { sessionStorage.setItem("antiphon.token", state.token); } catch { /* no storage: this page keeps it */ }
      resolve();
    }, { once: true });
  });
}

/** The events of a streamed answer, one parsed object after the other. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function say(text) { $("status").textContent = text; }

let faultClock = 0;
function fault(error) {
  if (error.name === "AbortError") return;
  const place = $("fault");
  place.textContent = error.message;
  place.hidden = false;
  clearTimeout(faultClock);
  faultClock = setTimeout(() => { place.hidden = true; }, 8000);
}

const guarded = (work) => async (...given) => {
  try { await work(...given); } catch (error) { fault(error); }
};

// Search settings.

function knobs() {
  const chosen = {};
  for (const field of $("knobs").elements) {
    if (!field.name || field.value === "") continue;
    chosen[field.name] = field.tagName === "SELECT" ? field.value === "true" : Number(field.value);
  }
  return chosen;
}

function showOwnKnobs() {
  const own = model()?.antiphon.search ?? {};
  for (const field of $("knobs").elements) {
    if (field.tagName === "INPUT") field.placeholder = own[field.name] ?? "";
  }
}

const model = () => state.models.find((one) => one.id === $("model").value);

// The conversation.

/** The turns that the model reads, and no more: a long conversation would be too large to be sent. */
function messages() {
  const read = (model()?.antiphon.context ?? 0) + 1;
  return state.turns.slice(-read).flatMap((turn) => [
    { role: "user", content: turn.said },
    ...(turn.answer ? [{ role: "assistant", content: turn.answer }] : []),
  ]);
}

async function send(text) {
  const source = model()?.antiphon.context ? null : text;  // with turns before it, the server says what was read
  const turn = { said: text, answer: null, id: null, source, thumb: 0, better: null, model: $("model").value };
  state.turns.push(turn);
  $("welcome").hidden = true;
  const item = answerItem(turn), said = saidItem(text);
  $("log").append(said, item.element);
  scroll();
  const going = new AbortController();
  state.going = going;
  busy(true);
  let given = "", failed = false;
  try {
    const { seed, ...others } = knobs();
    const { mmi } = model()?.antiphon.search ?? {};  // one person waits: rank answers, where the model does
    const body = { model: turn.model, messages: messages(), stream: true, mmi, ...others };
    if (seed !== undefined) body.seed = seed;
    if (state.conversation) body.conversation = state.conversation;
    const answer = await call("v1/chat/completions", { body, signal: going.signal });
    for await (const event of events(answer)) {
      if (event.error) throw new Error(event.error.message);
      const piece = event.choices[0]?.delta.content ?? "";
      if (piece) {
        const below = atBottom();  // who has scrolled up to read stays there
        given += piece;
        item.text.textContent = given;
        if (below) scroll();
      }
      if (event.antiphon) {
        turn.source = event.antiphon.source;
        turn.id = event.antiphon.turn;
        if (event.antiphon.conversation) remember(event.antiphon.conversation, turn);
      }
    }
  } catch (error) {
    failed = true;
    fault(error);
  } finally {
    turn.answer = given;
    if (state.going === going) {
      state.going = null;
      busy(false);
    }
  }
  if (failed && !given && state.turns.includes(turn)) {  // as if it had not been said: it may be said again
    state.turns.splice(state.turns.indexOf(turn), 1);
    said.remove();
    item.element.remove();
    $("welcome").hidden = state.turns.length > 0;
    $("said").value = [text, $("said").value].filter(Boolean).join("\n");
    say("Not answered.");
  } else {
    item.finish();
    say(`Answer: ${given || "nothing"}`);
  }
  if (document.activeElement === document.body) $("said").focus();  // Send and Stop take turns, and the focus with them
}

function busy(on) {
  $("send").hidden = on;
  $("stop").hidden = !on;
}

function atBottom() {
  const log = $("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 40;
}

function scroll() {
  $("log").scrollTop = $("log").scrollHeight;
}

const saidItem = (text) => h("li", { className: "said" }, h("div", { className: "body" }, h("p", {}, text)));

/** An answer with what can be done about it. */
function answerItem(turn) {
  const text = h("p", {}, turn.answer ?? "");
  const body = h("div", { className: "body going" }, text);
  const element = h("li", { className: "answer" }, body);
  const finish = () => {
    body.classList.remove("going");
    if (turn.answer === "") text.append(h("span", { className: "quiet" }, "(it said nothing)"));
    body.append(acts(turn, body));
    if (turn.better) showBetter(turn, body);
  };
  return { element, text, finish };
}

function acts(turn, body) {
  const thumbs = [[1, "Good answer", "👍"], [-1, "Bad answer", "👎"]].map(([value, label, sign]) =>
    h("button", {
      type: "button", title: label, "aria-label": label, "aria-pressed": String(turn.thumb === value),
      onclick: guarded(async () => {
        const thumb = turn.thumb === value ? 0 : value;
        await call(`turns/${turn.id}`, { method: "PUT", body: { thumb } });
        turn.thumb = thumb;
        thumbs.forEach((thumb, place) => thumb.setAttribute("aria-pressed", String(turn.thumb === (place ? -1 : 1))));
        say("Noted.");
      }),
    }, sign));
  const better = h("button", { type: "button", onclick: () => correct(turn, body) }, "Better answer");
  const kept = turn.id ? [...thumbs, better] : [];
  const known = turn.source === null ? [] : [  // of an answer that was stopped nobody said what was read for it
    toggle("Attention", body, ".looks", () => attention(turn.source, turn.answer, turn.model)),
    toggle("Alternatives", body, ".others", () => alternatives(turn))];
  return h("div", { className: "acts" }, ...kept, ...known);
}

/** A button that shows something made on demand, and takes it away again. */
function toggle(label, body, selector, make) {
  const button = h("button", {
    type: "button", "aria-expanded": "false",
    onclick: guarded(async () => {
      const there = body.querySelector(selector);
      button.disabled = true;
      try {
        if (there) there.remove(); else body.append(await make());
      } finally {
        button.disabled = false;
        if (document.activeElement === document.body) button.focus();
      }
      button.setAttribute("aria-expanded", String(!there));
      if (!there) body.lastElementChild.scrollIntoView({ block: "nearest" });
    }),
  }, label);
  return button;
}

function correct(turn, body) {
  body.querySelector(".better")?.remove();
  const field = h("textarea", { rows: 2, maxLength: 4000, value: turn.better ?? turn.answer, "aria-label": "A better answer" });
  const form = h("form", {
    className: "better",
    onsubmit: guarded(async (event) => {
      event.preventDefault();
      await call(`turns/${turn.id}`, { method: "PUT", body: { better: field.value } });
      turn.better = field.value.trim();
      form.remove();
      showBetter(turn, body);
      say("The better answer is kept.");
    }),
  }, field, h("div", {}, h("button", { type: "submit" }, "Keep"), h("button", { type: "button", onclick: () => form.remove() }, "Cancel")));
  body.querySelector(".acts").after(form);
  field.focus();
  field.select();
}

function showBetter(turn, body) {
  body.querySelector(".instead")?.remove();
  if (!turn.better) return;
  body.querySelector("p").after(h("p", { className: "instead" }, h("span", { className: "quiet" }, "better: "), turn.better));
}

async function alternatives(turn) {
  const { max_tokens, ...chosen } = knobs();
  const body = { model: turn.model, texts: [turn.source], ...chosen, ...several(chosen, 8) };
  const { predictions: [found] } = await json("predict", { body });
  const all = [found, ...found.alternatives].slice(0, 6);
  return h("ol", { className: "others", "aria-label": "Alternatives" }, ...all.map((one) => scored(one)));
}

/** How many answers to ask for: as many as the beam has, where one was chosen. */
function several(chosen, drawn) {
  if (chosen.sample ?? model()?.antiphon.search.sample) return { nbest: drawn };
  const beam = chosen.beam ?? 8;
  return { beam, nbest: Math.min(5, beam) };
}

const scored = (one) => h("li", {}, one.text, h("span", { className: "score", title: "log-probability over the length penalty; with mmi, what answers are ranked by" }, one.score.toFixed(2)));

// Attention.

async function attention(source, target, name) {
  const looks = await json("attention", { body: { model: name, source, target } });
  return drawAttention(looks);
}

/** Words to hover, and the map: source across, answer down. */
function drawAttention({ source_tokens: sources, tokens: targets, attention: weights }) {
  const most = Math.max(1e-9, ...weights.map((row) => Math.max(0, ...row)));
  if (most <= 1e-9) return h("div", { className: "looks" }, h("p", { className: "quiet" }, "This model has no attention."));
  const sourceWords = sources.map((word) => h("span", { className: "source" }, shownToken(word)));
  const rows = [];
  const look = (place) => {
    sourceWords.forEach((word, column) => word.style.setProperty("--w", place < 0 ? 0 : weights[place][column]));
    targetWords.forEach((word, row) => word.setAttribute("aria-pressed", String(row === place)));
    rows.forEach((row, index) => row.classList.toggle("on", index === place));
  };
  const targetWords = targets.map((word, place) => {
    const top = sources[weights[place].indexOf(Math.max(...weights[place]))];
    return h("span", {
      className: "target", role: "button", tabIndex: 0, "aria-pressed": "false",
      "aria-label": `${shownToken(word)}: looked most at ${shownToken(top)}`,
      onmouseenter: () => look(place), onfocus: () => look(place), onclick: () => look(place),
    }, shownToken(word));
  });
  const table = h("table", {},
    h("caption", { className: "hidden" }, "Attention: source tokens across, answer tokens down"),
    h("thead", {}, h("tr", {}, h("td", {}), ...sources.map((word) => h("th", { scope: "col" }, shownToken(word))))));
  const body = h("tbody");
  weights.forEach((row, place) => {
    const cells = row.map((weight, column) => {
      const percent = `${Math.round(100 * weight)} %`;
      const cell = h("td", { title: `${shownToken(targets[place])} → ${shownToken(sources[column])}: ${percent}` },
        h("span", { className: "hidden" }, percent));
      cell.style.setProperty("--w", weight / most);
      return cell;
    });
    const line = h("tr", { onmouseenter: () => look(place) }, h("th", { scope: "row" }, shownToken(targets[place])), ...cells);
    rows.push(line);
    body.append(line);
  });
  table.append(body);
  const spaced = (words) => words.flatMap((word) => [word, " "]);
  return h("div", { className: "looks" },
    h("h3", {}, "What was read"), h("p", { className: "words" }, ...spaced(sourceWords)),
    h("h3", {}, "What was answered: point at a word"), h("p", { className: "words", role: "group", "aria-label": "Answer tokens" }, ...spaced(targetWords)),
    h("div", { className: "map", tabIndex: 0, role: "region", "aria-label": "Attention map" }, table));
}

/** A token as a reader wants it: a subword's mark of a word's beginning (▁) is left out, a space is seen. */
function shownToken(token) {
  const bare = token.replace(/^▁(?=.)/u, "");
  return bare.trim() === "" || bare === "▁" ? "␣" : bare;
}

// Conversations kept by the server; this browser knows their ids.

function remember(id, turn) {
  state.conversation = id;
  const past = memory.get("past", []).filter((one) => one.id !== id);
  const before = memory.get("past", []).find((one) => one.id === id);
  past.unshift({ id, title: before?.title ?? turn.said, model: turn.model });
  memory.set("past", past.slice(0, 50));
  if (location.hash !== `#${id}`) history.replaceState(null, "", `#${id}`);
  showPast();
}

function showPast() {
  const past = memory.get("past", []);
  $("past-none").hidden = past.length > 0;
  $("past").replaceChildren(...past.map((one) => h("li", {},
    h("button", { type: "button", "aria-current": String(one.id === state.conversation), onclick: guarded(() => open(one.id)) }, one.title || "(nothing)"),
    h("button", { type: "button", "aria-label": `Delete: ${one.title}`, title: "Delete", onclick: guarded(() => forget(one.id)) }, "×"))));
}

async function forget(id) {
  try {
    await call(`conversations/${id}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error;  // else it is gone already; the id is the only key to it
  }
  memory.set("past", memory.get("past", []).filter((one) => one.id !== id));
  if (id === state.conversation) begin();
  showPast();
  say("Deleted.");
}

function begin() {
  state.going?.abort();
  state.turns = [];
  state.conversation = null;
  $("log").replaceChildren();
  $("welcome").hidden = false;
  history.replaceState(null, "", location.pathname);
  showPast();
}

async function open(id) {
  const kept = await json(`conversations/${id}`, { method: "GET" });
  begin();
  state.conversation = id;
  history.replaceState(null, "", `#${id}`);
  state.turns = kept.turns;
  $("welcome").hidden = true;
  for (const turn of kept.turns) {
    const item = answerItem(turn);
    item.finish();
    $("log").append(saidItem(turn.said), item.element);
  }
  const name = kept.turns.at(-1).model;
  if (state.models.some((one) => one.id === name)) $("model").value = name;
  showOwnKnobs();
  showPast();
  view("talk");
  scroll();
}

// Two panes.

async function answerPane() {
  const source = $("pane-source").value;
  const { max_tokens, ...chosen } = knobs();
  const body = { model: $("model").value, texts: [source], attention: true, ...chosen, ...several(chosen, 5) };
  if (max_tokens !== undefined) body.max_length = max_tokens;
  state.pane?.abort();  // an answer to an earlier text must not stand beside this one
  const going = state.pane = new AbortController();
  for (const place of ["pane-answer", "pane-others", "pane-attention"]) $(place).replaceChildren();
  const { predictions: [found] } = await json("predict", { body, signal: going.signal });
  $("pane-answer").textContent = found.text;
  if (found.truncated) $("pane-answer").append(h("p", { className: "quiet" }, "The text was too long: only its end was read."));
  $("pane-others").replaceChildren(...found.alternatives.map(scored));
  $("pane-attention").replaceChildren(drawAttention(found));
  say(`Answer: ${found.text}`);
}

function view(name) {
  $("talk").hidden = name !== "talk";
  $("panes").hidden = name !== "panes";
  $("view-talk").setAttribute("aria-pressed", String(name === "talk"));
  $("view-panes").setAttribute("aria-pressed", String(name === "panes"));
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").setAttribute("aria-pressed", String(name === "dark"));
  $("theme").textContent = name === "dark" ? "☀" : "☾";
}

function panel(name, others) {
  $(`${name}-open`).addEventListener("click", () => {
    const opening = $(name).hidden;
    for (const one of [name, ...others]) {
      $(one).hidden = true;
      $(`${one}-open`).setAttribute("aria-expanded", "false");
    }
    $(name).hidden = !opening;
    $(`${name}-open`).setAttribute("aria-expanded", String(opening));
  });
}

async function start() {
  theme(memory.get("theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  panel("settings", ["history"]);
  panel("history", ["settings"]);
  for (const [name, value] of Object.entries(memory.get("knobs", {}))) {
    const field = $("knobs").elements[name];
    if (field) field.value = value;
  }
  $("theme").addEventListener("click", () => {
    const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    theme(name);
    memory.set("theme", name);
  });
  $("knobs").addEventListener("submit", (event) => event.preventDefault());
  $("knobs").addEventListener("change", () => memory.set("knobs", knobs()));
  $("knobs").addEventListener("reset", () => memory.set("knobs", {}));
  for (const name of ["talk", "panes"]) {
    $(`view-${name}`).addEventListener("click", () => { state.viewChosen = true; view(name); });
  }
  document.querySelector(".skip").addEventListener("click", (event) => {  // the address keeps the conversation
    event.preventDefault();
    $($("talk").hidden ? "pane-source" : "said").focus();
  });
  $("new").addEventListener("click", () => { begin(); view("talk"); $("said").focus(); });
  $("stop").addEventListener("click", () => state.going?.abort());
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("said").value.trim();
    if (!text || state.going) return;
    $("said").value = "";
    send(text);
  });
  $("said").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {  // 229: Safari, of an input method
      event.preventDefault();
      $("composer").requestSubmit();
    }
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") state.going?.abort(); });
  $("pane-form").addEventListener("submit", guarded(async (event) => { event.preventDefault(); await answerPane(); }));
  $("pane-source").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("pane-form").requestSubmit();
  });
  const chooseView = () => {
    showOwnKnobs();
    $("welcome-model").textContent = $("model").value;
    if (!state.viewChosen) view(model()?.antiphon.talks || state.turns.length ? "talk" : "panes");
  };
  $("model").addEventListener("change", chooseView);
  window.addEventListener("hashchange", guarded(async () => { if (location.hash.length > 16) await open(location.hash.slice(1)); }));

  state.models = (await json("v1/models", { method: "GET" })).data;
  $("model").replaceChildren(...state.models.map((one) => h("option", { value: one.id }, one.id)));
  chooseView();
  showPast();
  if (/^#[\w-]{16,64}$/.test(location.hash)) await open(location.hash.slice(1));
}

guarded(start)();
