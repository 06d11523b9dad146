// The page speaks the same API as every other client.

const $ = (id) => document.getElementById(id);
const hues = (k) => `hsl(${(k * 137.5 + 190) % 360} 55% 52%)`;  // neighbours far apart
let models = [];
const asked = new Map();  // model id -> prompts asked from here, newest first: { prompt, student }
const shownPrompts = 4;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function headers() {
  const key = $("key").value;
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function ask(path, body) {
  const answer = await fetch(path, body ? { method: "POST", headers: headers(), body: JSON.stringify(body) } : { headers: headers() });
  const read = await answer.json();
  if (answer.ok) return { read, answer };
  if (answer.status === 401) {
    $("access").open = true;
    $("key").focus();
  }
  throw new Error(read.error?.message ?? `the server answered ${answer.status}`);
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

const chosenModel = () => models.find((model) => model.id === $("model").value);
const chosenClass = () => Number(new FormData($("request")).get("class"));
const className = (model, id) => model.atelier.class_names[id] ?? `class ${id}`;
// What is asked of a model, as the API's fields.
const wish = (model) => (model.atelier.reads_prompts ? { prompt: $("prompt").value.trim() } : { class: chosenClass() });
const nameOf = (model, { prompt, class: id }) => prompt ?? className(model, id);
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function showChoice() {
  const model = chosenModel();
  $("words").hidden = !model.atelier.reads_prompts;
  $("choice").hidden = model.atelier.reads_prompts;
  $("prompt").required = model.atelier.reads_prompts;
  $("race").hidden = rivals().length < 2;
  const before = chosenClass();
  $("classes").replaceChildren(...model.atelier.owner.map((owner, id) => {
    const input = element("input", { type: "radio", name: "class", value: id, checked: id === (before < model.atelier.owner.length ? before : 0) });
    const chip = element("label", {}, input, element("span", { textContent: className(model, id) }));
    chip.style.setProperty("--hue", hues(owner));
    return chip;
  }));
}

// The prompts that were asked from here and are a student's, or the classes that it owns.
function property(model, k) {
  if (model.atelier.reads_prompts) {
    const own = (asked.get(model.id) ?? []).filter(({ student }) => student === k).slice(0, shownPrompts);
    return own.map(({ prompt }, i) => element(i === 0 && prompt === $("prompt").value.trim() ? "b" : "span", { textContent: `“${prompt}”` }));
  }
  const chosen = chosenClass();
  return model.atelier.owner.flatMap((owner, id) => (owner === k ? [element(id === chosen ? "b" : "span", { textContent: className(model, id) })] : []));
}

function showMap(student) {
  const model = chosenModel();
  const most = Math.max(1, ...model.atelier.students.map(({ routed }) => routed));
  $("map").replaceChildren(...model.atelier.students.map((facts, k) => {
    const own = element("div", { className: "own" });
    for (const one of property(model, k)) own.append(own.hasChildNodes() ? ", " : "", one);
    const name = element("div", { className: "name" }, element("span", { textContent: `Student ${k}` }), element("span", { textContent: facts.routed }));
    const size = element("div", { className: "own", textContent: `${plural(facts.parameters, "parameter")}${facts.loaded ? "" : ", not in memory"}` });
    const share = element("div", { className: "share" });
    share.style.width = `${100 * facts.routed / most}%`;
    const item = element("li", { className: k === student ? "now" : "" }, name, own, size, share);
    item.style.setProperty("--hue", hues(k));
    return item;
  }));
  requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector("#map .now")?.classList.remove("now")));
}

async function refresh(student) {
  const { read } = await ask("v1/models");
  const first = models.length === 0;
  models = read.data;
  if (first) {
    $("model").replaceChildren(...models.map(({ id }) => element("option", { value: id, textContent: id })));
    showChoice();
  }
  showMap(student);
}

const source = (picture) => `data:image/png;base64,${picture.b64_json}`;

async function draw(model, count) {
  const start = performance.now();
  const body = { model: model.id, ...wish(model), n: count, seed: Number($("seed").value) };
  const { read, answer } = await ask("v1/images/generations", body);
  return { pictures: read.data, took: performance.now() - start, student: Number(answer.headers.get("X-Atelier-Student")),
           server: Number(answer.headers.get("X-Atelier-Milliseconds")) };
}

// A prompt that was answered goes to the front of those that the map shows.
function remember(model, { pictures, student }) {
  const { prompt } = pictures[0].atelier;
  if (prompt === undefined) return;
  const others = (asked.get(model.id) ?? []).filter((one) => one.prompt !== prompt);
  asked.set(model.id, [{ prompt, student }, ...others].slice(0, 100));
}

function showPictures(model, { pictures, took, student, server }) {
  const name = nameOf(model, pictures[0].atelier);
  $("pictures").replaceChildren(...pictures.map((picture) => {
    const { number, seed } = picture.atelier;
    const shown = element("figure", {}, element("img", { src: source(picture), alt: `${name}, seed ${seed}, number ${number}` }),
                          element("figcaption", {}, element("b", { textContent: name }), `student ${student}, number ${number}`));
    shown.style.setProperty("--hue", hues(student));
    return shown;
  }));
  say(`${plural(pictures.length, "picture")} by student ${student} of ${model.id}: ${server.toFixed(1)} ms at the server, ${took.toFixed(0)} ms until here. ` +
      `Seed ${pictures[0].atelier.seed}.`);
}

function showEntrants(entries) {
  const slowest = Math.max(...entries.map(({ took }) => took));
  $("entrants").replaceChildren(...entries.map(({ model, pictures, took, student }) => {
    const facts = model.atelier.students[student];
    const bar = element("div", { className: "bar" });
    bar.style.width = `${100 * took / slowest}%`;
    const words = `${plural(model.atelier.evaluations, "network evaluation")}, ${plural(facts.parameters, "parameter")}: ${took.toFixed(1)} ms`;
    return element("li", {}, element("img", { src: source(pictures[0]), alt: `By ${model.id}` }),
                   element("div", {}, element("strong", { textContent: model.id }), element("div", { className: "own", textContent: words }), bar));
  }));
  $("comparison").hidden = false;
}

// The models that can be asked what the chosen one can.
function rivals() {
  const { reads_prompts: prompts } = chosenModel().atelier;
  return models.filter(({ atelier }) => atelier.reads_prompts === prompts && (prompts || chosenClass() < atelier.owner.length));
}

async function race() {
  const entries = [];
  for (const model of rivals()) {
    say(`${model.id} draws ...`);
    await draw(model, 1);  // the first one of a kind may have to be loaded
    entries.push({ model, ...await draw(model, 1) });
    showEntrants(entries);
  }
  say("The same request, answered by every model.");
  $("comparison").scrollIntoView({ block: "nearest" });
}

async function busily(action) {
  const buttons = document.querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  try {
    if ($("fresh").checked) $("seed").value = Math.floor(Math.random() * 1e9);
    await action();
  } catch (problem) {
    say(problem.message, true);
  }
  buttons.forEach((button) => { button.disabled = false; });
}

$("request").addEventListener("submit", (event) => {
  event.preventDefault();
  const focused = document.activeElement;
  busily(async () => {
    const model = chosenModel();
    const drawn = await draw(model, Number($("count").value));
    remember(model, drawn);
    showPictures(model, drawn);
    await refresh(drawn.student);
  }).then(() => focused?.focus());
});
$("race").addEventListener("click", () => busily(race).then(() => $("race").focus()));
$("model").addEventListener("change", () => {
  showChoice();
  showMap();
});
$("classes").addEventListener("change", () => showMap());
$("key").addEventListener("change", () => refresh().then(() => say("")).catch((problem) => say(problem.message, true)));

// Enter in a class draws, as in every other field.
$("classes").addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault();
    $("request").requestSubmit();
  }
});

// Live routing: what others ask for shows, too.
setInterval(() => { if (models.length > 0 && !document.hidden) refresh().catch(() => {}); }, 2000);
refresh().then(() => $("request").requestSubmit()).catch((problem) => say(problem.message, true));
