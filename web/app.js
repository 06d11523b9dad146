// The page uses the same API as every other client.

const $ = (id) => document.getElementById(id);
const hues = (k) => `hsl(${(k * 137.5 + 190) % 360} 55% 52%)`;  // neighbours far apart
const shownPrompts = 4, maxDrawings = 24, fewImages = 12, keyStorage = "atelier-key";
// Requests per model in a race: at most `rounds`, and none is started after `milliseconds`.
const races = { rounds: 5, milliseconds: 3000 };
let models = [], limits = { n: 64, prompt_bytes: 4096 }, lost = false;
const promptHistory = new Map();  // model id -> prompts sent from this page, newest first: { prompt, student }
const drawings = [];        // results drawn from this page, newest first
let shown;                  // the displayed drawing
let enlarged = 0;           // the index of its image in the dialog

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Requests to the server --------------------------------------------------------------------------

function headers() {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

class Lost extends Error {}

const later = (answer) => {
  const seconds = Number(answer.headers.get("Retry-After"));
  return seconds > 0 ? `Try again in ${plural(seconds, "second")}.` : "Try again in a moment.";
};

// The message for the user when a response has no images.
function errorText(answer, error) {
  switch (answer.status) {
    case 401:
      return $("key").value.trim() ? "The server does not know this API key. Enter another one at “API key”."
                                   : "This server asks for an API key. Enter it at “API key”.";
    case 429: return `The server has too much to draw just now. ${later(answer)}`;
    case 503:
      return (error.code === "student_unavailable" ? "No worker can draw this at the moment. "
                                                   : "The server is stopping. ") + later(answer);
    case 504: return "The server did not finish in time. Ask for fewer images, or try again.";
    default: return error.message ?? `The server answered ${answer.status}.`;
  }
}

async function ask(path, body) {
  let answer;
  try {
    const request = body && { method: "POST", body: JSON.stringify(body) };
    answer = await fetch(path, { headers: headers(), ...request });
  } catch {
    const text = "The server does not answer. Is it still running? This page tries again by itself.";
    throw new Lost(text);
  }
  const read = await answer.json().catch(() => ({}));
  if (answer.ok) return { read, answer };
  if (answer.status === 401) {
    $("access").open = true;
    $("key").focus();
  }
  throw new Error(errorText(answer, read.error ?? {}));
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function complain(problem) {
  lost = problem instanceof Lost;
  say(problem.message, true);
}

// Choosing what to draw ---------------------------------------------------------------------------

const chosenModel = () => models.find((model) => model.id === $("model").value);
const chosenClass = () => Number(new FormData($("request")).get("class"));
const className = (model, id) => model.atelier.class_names[id] ?? `class ${id}`;
// The class or prompt of a request, as the API's fields.
const target = ({ atelier }) => (atelier.reads_prompts ? { prompt: $("prompt").value.trim() }
                                                     : { class: chosenClass() });
const nameOf = (model, { prompt, class: id }) => prompt ?? className(model, id);
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const isAlone = (model) => model.atelier.students.length === 1;
// The name of the network that drew: a student, or the model itself if it has no students.
const drawer = (model, k) => (isAlone(model) ? model.id : `student ${k} of ${model.id}`);
const work = ({ atelier: { evaluations: count } }) => (count === 1 ? "one step" : plural(count, "network evaluation"));

function about(model) {
  const how = model.atelier.evaluations === 1 ? "in one step" : `in ${work(model)}`;
  if (isAlone(model)) return `One model draws everything, each image ${how}.`;
  const students = plural(model.atelier.students.length, "student");
  return `One teacher, ${students}: each image is drawn ${how} by the student that owns the class or prompt.`;
}

// The models that accept the same request as the chosen one, with the same meaning.
function rivals() {
  const chosen = chosenModel().atelier;
  const same = (a, b) => a.length === b.length && a.every((name, i) => name === b[i]);
  const means = ({ class_names: names, owner }) => same(names, chosen.class_names) && owner.length === chosen.owner.length;
  return models.filter(({ atelier }) => atelier.reads_prompts === chosen.reads_prompts && same(atelier.size, chosen.size) &&
                                        (chosen.reads_prompts || means(atelier)));
}

function checkPrompt() {
  const bytes = new TextEncoder().encode($("prompt").value).length, most = limits.prompt_bytes;
  const tooLong = chosenModel()?.atelier.reads_prompts && bytes > most;
  $("prompt").setCustomValidity(tooLong ? `The prompt has ${bytes} bytes; at most ${most} are read.` : "");
}

function showChoice() {
  const model = chosenModel();
  $("about").textContent = about(model);
  $("prompt-row").hidden = !model.atelier.reads_prompts;
  $("choice").hidden = model.atelier.reads_prompts;
  $("prompt").required = model.atelier.reads_prompts;
  checkPrompt();
  $("race").hidden = rivals().length < 2;
  $("comparison").hidden = true;  // it belongs to another request
  const before = chosenClass(), chosen = before < model.atelier.owner.length ? before : 0;
  $("classes").replaceChildren(...model.atelier.owner.map((owner, id) => {
    const input = element("input", { type: "radio", name: "class", value: id, checked: id === chosen });
    const chip = element("label", {}, input, element("span", { textContent: className(model, id) }));
    chip.style.setProperty("--hue", hues(owner));
    return chip;
  }));
}

// The prompts sent from this page that a student owns, or the classes that it owns.
function property(model, k) {
  if (model.atelier.reads_prompts) {
    const own = (promptHistory.get(model.id) ?? []).filter(({ student }) => student === k).slice(0, shownPrompts);
    const now = $("prompt").value.trim();
    return own.map(({ prompt }, i) => element(i === 0 && prompt === now ? "b" : "span", { textContent: `“${prompt}”` }));
  }
  const chosen = chosenClass();
  const ids = [...model.atelier.owner.keys()].filter((id) => model.atelier.owner[id] === k);
  return ids.map((id) => element(id === chosen ? "b" : "span", { textContent: className(model, id) }));
}

function showMap(student) {
  const model = chosenModel();
  const most = Math.max(1, ...model.atelier.students.map(({ routed }) => routed));
  $("map-hint").textContent = isAlone(model)
    ? "This model draws all of them itself. The number counts the requests that it received."
    : "Each class, or each prompt by its meaning, belongs to one student. Numbers count the requests that it received.";
  $("map").replaceChildren(...model.atelier.students.map((facts, k) => {
    const own = element("div", { className: "own" });
    for (const one of property(model, k)) own.append(own.hasChildNodes() ? ", " : "", one);
    const title = element("span", { textContent: isAlone(model) ? model.id : `Student ${k}` });
    const name = element("div", { className: "name" }, title, element("span", { textContent: facts.routed }));
    const away = facts.loaded ? "" : ", not in memory";
    const size = element("div", { className: "own", textContent: plural(facts.parameters, "parameter") + away });
    const share = element("div", { className: "share" });
    share.style.width = `${100 * facts.routed / most}%`;
    const item = element("li", { className: k === student ? "now" : "" }, name, own, size, share);
    item.style.setProperty("--hue", hues(k));
    return item;
  }));
  const fade = () => document.querySelector("#map .now")?.classList.remove("now");
  requestAnimationFrame(() => requestAnimationFrame(fade));
}

async function refresh(student) {
  const { read } = await ask("v1/models");
  const before = models.map(({ id }) => id).join("\n"), chosen = $("model").value;
  models = read.data;
  limits = { ...limits, ...read.limits };
  $("count").max = limits.n;
  if (models.map(({ id }) => id).join("\n") !== before) {
    const option = ({ id }) => element("option", { value: id, textContent: id, selected: id === chosen });
    $("model").replaceChildren(...models.map(option));
    showChoice();
  }
  showMap(student);
}

// Drawing -----------------------------------------------------------------------------------------

const source = (result) => `data:image/png;base64,${result.b64_json}`;

async function draw(model, count) {
  const start = performance.now();
  const request = { model: model.id, ...target(model), n: count, seed: Number($("seed").value) };
  const { read, answer } = await ask("v1/images/generations", request);
  const header = (name) => Number(answer.headers.get(name));
  return { model, request, images: read.data, took: performance.now() - start,
           student: header("X-Atelier-Student"), server: header("X-Atelier-Milliseconds") };
}

// Adds a drawing to the history and its prompt to the front of those on the map.
function remember(drawn) {
  const { prompt } = drawn.images[0].atelier;
  drawings.unshift(drawn);
  drawings.length = Math.min(drawings.length, maxDrawings);
  if (prompt === undefined) return;
  const others = (promptHistory.get(drawn.model.id) ?? []).filter((one) => one.prompt !== prompt);
  promptHistory.set(drawn.model.id, [{ prompt, student: drawn.student }, ...others].slice(0, 100));
}

function fileName({ model, images }, i) {
  const { seed, number } = images[i].atelier;
  const title = nameOf(model, images[i].atelier).toLowerCase();
  const name = title.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40);
  return `${model.id.replaceAll("/", "-")}-${name}-${seed}-${number}.png`;
}

function showImages(drawn) {
  const { model, images, took, student, server } = drawn;
  const { seed, prompt_truncated: truncated } = images[0].atelier;
  const name = nameOf(model, images[0].atelier);
  shown = drawn;
  $("images-title").textContent = `Images: ${name}`;
  $("images").classList.toggle("many", images.length > fewImages);
  $("images").replaceChildren(...images.map((result, i) => {
    const { number } = result.atelier, whose = isAlone(model) ? "" : `student ${student}, `;
    const image = element("img", { src: source(result), alt: `${name}, seed ${seed}, number ${number}` });
    const open = element("button", { type: "button", className: "image", title: "Enlarge" }, image);
    open.onclick = () => enlarge(i);
    const figure = element("figure", {}, open, element("figcaption", { textContent: `${whose}number ${number}` }));
    figure.style.setProperty("--hue", hues(student));
    return figure;
  }));
  const cut = truncated ? ` The prompt is longer than the model reads; not read: “${truncated}”.` : "";
  const time = `${server.toFixed(1)} ms at the server, ${took.toFixed(0)} ms in total`;
  say(`${plural(images.length, "image")} by ${drawer(model, student)}, ${work(model)} each: ${time}. Seed ${seed}.${cut}`);
  showProgram(drawn);
  showHistory();
}

function showHistory() {
  $("past").hidden = drawings.length < 2;
  $("history").replaceChildren(...drawings.map((drawn) => {
    const { model, images } = drawn, { atelier } = images[0];
    const label = `${nameOf(model, atelier)}, ${model.id}, seed ${atelier.seed}`;
    const image = element("img", { src: source(images[0]), alt: label });
    const button = element("button", { type: "button", title: label }, image);
    button.onclick = () => showImages(drawn);
    button.setAttribute("aria-pressed", drawn === shown);
    return element("li", {}, button);
  }));
}

// Enlarged ----------------------------------------------------------------------------------------

function enlarge(i) {
  enlarged = (i + shown.images.length) % shown.images.length;
  const { model, images, student } = shown, result = images[enlarged];
  const name = nameOf(model, result.atelier), { number, seed } = result.atelier;
  $("large-title").textContent = name;
  Object.assign($("large-image"), { src: source(result), alt: `${name}, enlarged` });
  $("large-caption").textContent = `Number ${number} of seed ${seed}, by ${drawer(model, student)}. ` +
                                 `${model.atelier.size.join(" × ")} pixels; the file records how to draw it again.`;
  Object.assign($("download"), { href: source(result), download: fileName(shown, enlarged) });
  $("before").hidden = $("after").hidden = images.length === 1;
  if (!$("large").open) $("large").showModal();
}

// The request as a program ------------------------------------------------------------------------

const address = new URL(".", location.href).href.replace(/\/$/, "");
const inShell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

const saving = `import base64, json, sys
for i, one in enumerate(json.load(sys.stdin)["data"]):
    open(f"{i}.png", "wb").write(base64.b64decode(one["b64_json"]))`;

// A class is sent as its id in the prompt, which OpenAI's client requires.
const inPython = ({ model, prompt, class: id, n, seed }, key) => `import base64, os
from openai import OpenAI

client = OpenAI(base_url="${address}/v1", api_key=${key ? 'os.environ["ATELIER_KEY"]' : '"unused"'})
made = client.images.generate(model=${JSON.stringify(model)}, n=${n}, extra_body={"seed": ${seed}},
                              prompt=${JSON.stringify(prompt ?? String(id))})
for i, one in enumerate(made.data):
    open(f"{i}.png", "wb").write(base64.b64decode(one.b64_json))
`;

function showProgram({ request }) {
  const key = $("key").value.trim();
  $("curl").textContent = [`curl -s ${address}/v1/images/generations`,
                           "-H 'Content-Type: application/json'",
                           ...(key ? ['-H "Authorization: Bearer $ATELIER_KEY"'] : []),
                           `-d ${inShell(JSON.stringify(request))}`,
                           `| python3 -c '${saving}'`].join(" \\\n  ");
  $("python").textContent = inPython(request, key);
  $("program").hidden = false;
}

async function copy(button) {
  const from = $(button.dataset.copies);
  try {
    await navigator.clipboard.writeText(from.textContent);
    button.textContent = "Copied";
  } catch {  // allowed only on localhost or over TLS
    getSelection().selectAllChildren(from);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

// The race ----------------------------------------------------------------------------------------

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

function showEntrants(entries) {
  const slowest = Math.max(...entries.map(({ took }) => took));
  $("entrants").replaceChildren(...entries.map(({ model, images, took, student, rounds }) => {
    const facts = model.atelier.students[student];
    const bar = element("div", { className: "bar" });
    bar.style.width = `${100 * took / slowest}%`;
    const often = rounds > 1 ? `, the median of ${rounds}` : "";
    const how = `${work(model)}, ${plural(facts.parameters, "parameter")}: ${took.toFixed(1)} ms${often}`;
    const name = element("strong", { textContent: model.id });
    return element("li", {}, element("img", { src: source(images[0]), alt: `By ${model.id}` }),
                   element("div", {}, name, element("div", { className: "own", textContent: how }), bar));
  }));
  const { model, images: [{ atelier }] } = entries[0];
  $("compared").textContent = `${nameOf(model, atelier)}, seed ${atelier.seed}. ` +
                              "Bars show the milliseconds from the request to the image.";
  $("comparison").hidden = false;
}

// Uses the displayed seed. The first response of each model does not count, as its student may have to be loaded first.
async function race() {
  const entries = [];
  for (const model of rivals()) {
    const stop = busy(model);
    try {
      await draw(model, 1);
      const took = [], begun = performance.now();
      let last;
      while (took.length < races.rounds && (took.length === 0 || performance.now() - begun < races.milliseconds)) {
        last = await draw(model, 1);
        took.push(last.took);
      }
      entries.push({ ...last, took: median(took), rounds: took.length });
    } finally {
      stop();
    }
    showEntrants(entries);
  }
  say("The same request, answered by every model of the same data.");
  $("comparison").scrollIntoView({ block: "nearest" });
}

// Shows that a model is drawing, and for how long, until the returned function is called.
function busy(model) {
  const begun = performance.now(), name = model.id;
  const report = () => {
    const seconds = Math.floor((performance.now() - begun) / 1000);
    say(`${name} is drawing …${seconds > 0 ? ` ${plural(seconds, "second")}` : ""}`);
  };
  report();
  $("images").setAttribute("aria-busy", "true");
  const clock = setInterval(report, 1000);
  return () => {
    clearInterval(clock);
    $("images").removeAttribute("aria-busy");
  };
}

async function withButtonsDisabled(action) {
  const buttons = document.querySelectorAll("form button");
  buttons.forEach((button) => { button.disabled = true; });
  try {
    if (models.length === 0) await refresh();
    await action();
    lost = false;
  } catch (problem) {
    complain(problem);
  }
  buttons.forEach((button) => { button.disabled = false; });
}

const drawRequested = () => withButtonsDisabled(async () => {
  if ($("fresh").checked) $("seed").value = Math.floor(Math.random() * 1e9);
  const stop = busy(chosenModel());
  let drawn;
  try {
    drawn = await draw(chosenModel(), Number($("count").value));
  } finally {
    stop();
  }
  remember(drawn);
  showImages(drawn);
  await refresh(drawn.student);
});

$("request").addEventListener("submit", (event) => {
  event.preventDefault();
  const focused = document.activeElement;
  drawRequested().then(() => { if (document.activeElement === document.body) focused?.focus(); });
});
$("race").addEventListener("click", () => withButtonsDisabled(race).then(() => $("race").focus()));
$("model").addEventListener("change", () => {
  showChoice();
  showMap();
});
$("classes").addEventListener("change", () => {
  $("comparison").hidden = true;
  showMap();
});
$("prompt").addEventListener("input", checkPrompt);

// The key is kept until the tab is closed; entering it repeats the request.
$("key").value = sessionStorage.getItem(keyStorage) ?? "";
$("key").addEventListener("change", () => {
  sessionStorage.setItem(keyStorage, $("key").value.trim());
  drawRequested();
});
$("key").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  $("key").blur();
});

// Enter in a class draws, as in every other field.
$("classes").addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault();
    $("request").requestSubmit();
  }
});

$("before").addEventListener("click", () => enlarge(enlarged - 1));
$("after").addEventListener("click", () => enlarge(enlarged + 1));
$("close").addEventListener("click", () => $("large").close());
$("large").addEventListener("click", (event) => { if (event.target === $("large")) $("large").close(); });
$("large").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") enlarge(enlarged - 1);
  if (event.key === "ArrowRight") enlarge(enlarged + 1);
});
for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", () => copy(button));
}

// Live routing: shows the requests of other clients as well, and reports when the server is back.
setInterval(() => {
  if ((models.length === 0 && !lost) || document.hidden) return;
  refresh().then(() => {
    if (lost) say("The server is back.");
    lost = false;
  }).catch((problem) => { if (problem instanceof Lost && !lost) complain(problem); });
}, 2000);
drawRequested();
