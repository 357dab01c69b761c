// The dashboard in the browser: one instance per view of the widget. The kernel says what to show, in finished
// texts and float64 arrays; here it is laid out, drawn with plotly, and acknowledged once it is really on screen.
// Messages: see board.py. Nothing from the kernel is ever read as HTML.

const PAGE = Symbol.for("nbdebug.plotly");
const IN_USE_MS = 1500;
const THROTTLE_MS = 100;
const RETRY_MS = 200;
const SIGN_MS = 2000;
const FOCUSABLE = new Set(["button", "input", "select", "summary"]);

// --- plotly.js, once per page: asked of one board at a time, of the next if no answer comes

function plotlyOfPage() {
  return (globalThis[PAGE] ??= makeLoader());
}

function makeLoader() {
  const askers = new Map();
  let asked = null, timer = 0, loading = false, fulfil;
  const loader = { plotly: null, promise: new Promise((resolve) => { fulfil = resolve; }), join, leave, deliver };

  function join(id, ask) {
    if (loader.plotly) return;
    askers.set(id, ask);
    if (asked === null) askNext();
  }

  function leave(id) {
    askers.delete(id);
    if (asked === id && !loader.plotly && !loading) askNext();
  }

  function askNext() {
    clearTimeout(timer);
    const ids = [...askers.keys()];
    asked = ids.length ? ids[(ids.indexOf(asked) + 1) % ids.length] : null;
    if (asked === null) return;
    timer = setTimeout(askNext, 10000);
    askers.get(asked)();
  }

  async function deliver(buffer) {
    if (loader.plotly || loading) return;
    loading = true;
    clearTimeout(timer);
    try {
      const unzipped = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"));
      const code = await new Response(unzipped).text();
      const head = "const module={exports:{}},exports=module.exports,define=undefined;(function(){";
      const source = new Blob([head, code, "\n}).call(globalThis);export default module.exports;"], { type: "text/javascript" });
      const url = URL.createObjectURL(source);
      loader.plotly = (await import(url)).default;
      URL.revokeObjectURL(url);
      askers.clear();
      fulfil(loader.plotly);
    } catch (error) {
      console.warn("nbdebug: plotly.js could not be loaded, asking again", error);
      loading = false;
      timer = setTimeout(askNext, 1000);
    }
  }
  return loader;
}

// --- small helpers

function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  // JupyterLab binds arrow keys and more to whatever is focused in a notebook, unless the element itself says no.
  if (FOCUSABLE.has(tag) || "tabindex" in props) node.setAttribute("data-lm-suppress-shortcuts", "true");
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setOptions(select, options) {
  const key = JSON.stringify(options);
  if (select.dataset.options === key) return;
  const kept = select.value;
  select.replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
  if (options.some(([value]) => value === kept)) select.value = kept;
  select.dataset.options = key;
}

function throttle(send) {
  let timer = 0, last = 0, waiting = null;
  const flush = () => { timer = 0; last = Date.now(); send(...waiting); };
  return (...args) => {
    waiting = args;
    if (!timer) timer = setTimeout(flush, Math.max(0, last + THROTTLE_MS - Date.now()));
  };
}

function rate(value) {
  if (!(value > 0)) return value === 0 ? "0" : "–";
  const digits = String(Number(value.toPrecision(3))).includes("e") ? value : Number(value.toPrecision(3));
  return Number(digits).toExponential(2).replace(/(\.\d)0e/, "$1e").replace("e+", "e");
}

function merge(base, patch) {
  const merged = { ...base };
  for (const [key, value] of Object.entries(patch ?? {})) {
    const plain = value && typeof value === "object" && !Array.isArray(value);
    merged[key] = plain ? merge(base[key] ?? {}, value) : value;
  }
  return merged;
}

function about(seconds) {
  if (seconds < 1) return "under 1 s";
  if (seconds < 90) return `about ${Math.round(seconds)} s`;
  return seconds < 5400 ? `about ${Math.round(seconds / 60)} min` : `about ${(seconds / 3600).toFixed(1)} h`;
}

// --- colours: what the stylesheet says now for each colour in which the kernel authors its charts

class Colours {
  constructor(root) {
    this.probe = h("span", { class: "nbd-probe", "aria-hidden": "true" });
    root.append(this.probe);
    this.canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    this.names = {};
    this.table = new Map();
  }

  read() {
    const panel = this.computed("panel", "#fff");
    const table = new Map(Object.entries(this.names).map(([hex, name]) => [hex, this.computed(name, panel)]));
    const changed = JSON.stringify([...table]) !== JSON.stringify([...this.table]);
    this.table = table;
    return changed;
  }

  computed(name, under) {
    this.probe.style.color = `var(--nbd-${name})`;
    const context = this.canvas;
    for (const fill of [under, getComputedStyle(this.probe).color]) {
      context.fillStyle = fill;
      context.fillRect(0, 0, 1, 1);
    }
    const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
    return `rgb(${red},${green},${blue})`;
  }

  apply(value) {
    if (typeof value === "string") return this.table.get(value) ?? value;
    if (Array.isArray(value)) return value.map((each) => this.apply(each));
    if (!value || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, this.apply(each)]));
  }
}

// --- one chart: skeleton and patch from the kernel, arrays by trace name, drawn with plotly

class Chart {
  constructor(name, extra = null) {
    this.name = name;
    this.title = h("h3");
    this.readout = h("span", { class: "nbd-read" });
    this.plot = h("div", { class: "nbd-plot", role: "img" });
    this.hint = h("div", { class: "nbd-hint" });
    this.node = h("section", { class: `nbd-panel nbd-chart nbd-${name}`, "data-panel": name },
      h("header", {}, this.title, this.readout, extra), h("div", { class: "nbd-canvas" }, this.plot, this.hint));
    this.arrays = new Map();
    this.dirty = false;
    this.said = { title: "", readout: "", empty: "" };
  }

  set(kind, value) {
    if (kind === "panel") this.said = value;
    else if (kind === "figure") { this.figure = value; this.coloured = null; }
    else if (kind === "patch") this.patch = value;
    this.dirty = true;
  }

  setArray(trace, attribute, value) {
    if (!this.arrays.has(trace)) this.arrays.set(trace, {});
    this.arrays.get(trace)[attribute] = value;
    this.dirty = true;
  }

  drop(key) {
    if (key[1] === "figure") this.figure = null;
    else if (key[1] === "array") delete this.arrays.get(key[2])?.[key[3]];
    this.dirty = true;
  }

  recolour() { this.coloured = null; this.dirty = true; }

  async draw(plotly, colours, adjust) {
    this.dirty = false;
    setText(this.title, this.said.title);
    setText(this.readout, this.said.readout);
    this.readout.title = this.said.readout;
    this.plot.setAttribute("aria-label", `${this.said.title}: ${this.said.readout || this.said.empty}`);
    if (!this.plot.clientWidth) { this.dirty = true; return; } // while a theme's stylesheet is exchanged, for one
    const drawable = Boolean(plotly && this.figure && !this.said.empty);
    setText(this.hint, this.said.empty || (drawable ? "" : "loading the charts …"));
    this.plot.style.visibility = drawable ? "visible" : "hidden";
    if (!drawable) return;
    this.coloured ??= colours.apply(this.figure);
    const patch = colours.apply(this.patch ?? {});
    const layout = merge(this.coloured.layout, patch.layout);
    const size = { width: Math.max(120, this.plot.clientWidth), height: Math.max(90, this.plot.clientHeight) };
    Object.assign(layout, size, { font: { ...layout.font, family: getComputedStyle(this.plot).fontFamily } });
    if (adjust) adjust(layout);
    const data = this.coloured.data.map((trace) => ({ ...trace, ...patch.traces?.[trace.name], ...this.arrays.get(trace.name) }));
    await plotly.react(this.plot, data, layout, { displayModeBar: false, doubleClick: "reset", scrollZoom: false });
  }

  purge(plotly) { if (plotly) plotly.purge(this.plot); }
}

// --- the controls at the left

class Controls {
  constructor(command) {
    this.command = command;
    this.state = null;
    this.sendRate = throttle((value, group) => command("set_lr", { value, group }));
    this.sendClip = throttle((mode, threshold) => command("set_clip", { mode, threshold }));
    this.sendDropout = throttle((value, layer) => command("set_dropout", { value, layer }));
    this.node = this.build();
    this.node.addEventListener("focusout", () => setTimeout(() => this.apply(), 0));
  }

  build() {
    const lr = this.lr = h("input", { type: "range", min: 0, max: 800, step: 1, "aria-label": "Learning rate", oninput: () => this.dragRate() });
    this.lrText = h("input", { type: "text", class: "nbd-number", inputmode: "decimal", "aria-label": "Type a rate", onchange: () => this.typeRate() });
    this.lrNote = h("small");
    this.group = h("select", { "aria-label": "Parameter group", onchange: () => this.chose(this.lr, this.lrText) });
    this.clip = h("select", { "aria-label": "Clipping", onchange: () => this.changeClip() },
      ...["off", "norm", "value"].map((mode) => h("option", { value: mode }, mode)));
    this.threshold = h("input", { type: "number", min: 0, step: "any", "aria-label": "Clip threshold", oninput: () => this.changeClip() });
    this.clipNote = h("small");
    this.dropout = h("input", { type: "range", min: 0, max: 0.9, step: 0.01, "aria-label": "Dropout", oninput: () => this.dragDropout() });
    this.dropoutText = h("span", { class: "nbd-value" });
    this.layer = h("select", { "aria-label": "Dropout layer", onchange: () => this.chose(this.dropout) });
    this.dropoutNote = h("small");
    this.scheme = h("select", { "aria-label": "Init" });
    this.seed = h("input", { type: "number", min: 0, step: 1, value: 0, "aria-label": "Init seed" });
    this.init = h("button", { type: "button", onclick: guarded(() => this.command("reinitialize", { scheme: this.scheme.value, seed: Number(this.seed.value) })) }, "Re-initialise");
    this.initNote = h("small");
    this.epochs = h("input", { type: "number", min: 1, step: 1, value: 1, "aria-label": "Rerun epochs", oninput: () => this.predict() });
    this.start = h("select", { "aria-label": "Rerun from" });
    this.cost = h("span", { class: "nbd-mute" });
    this.rerun = h("button", { type: "button", "aria-label": "Rerun", onclick: guarded(() => this.command("rerun", { epochs: Number(this.epochs.value), start: this.start.value })) }, "Rerun ▸ ", this.cost);
    this.rerunNote = h("small");
    this.outcome = h("p", { class: "nbd-outcome", "aria-live": "polite" });
    const row = (label, ...rest) => h("div", { class: "nbd-row" }, h("div", { class: "nbd-label" }, ...label), ...rest);
    const pair = (...nodes) => h("div", { class: "nbd-pair" }, ...nodes);
    return h("section", { class: "nbd-panel nbd-controls", "aria-label": "Controls" },
      h("header", {}, h("h3", {}, "Controls"), this.optimizer = h("span", { class: "nbd-read" })),
      this.fields = h("fieldset", { class: "nbd-rows" }, row([h("span", {}, "Learning rate"), this.lrText], lr, this.group, this.lrNote),
      row([h("span", {}, "Clipping")], pair(this.clip, this.threshold), this.clipNote),
      row([h("span", {}, "Dropout"), this.dropoutText], this.dropout, this.layer, this.dropoutNote),
      row([h("span", {}, "Init"), h("label", { class: "nbd-unit" }, h("span", { "aria-hidden": "true" }, "seed"), this.seed)], this.scheme, this.init, this.initNote),
      row([h("span", {}, "Rerun")], pair(h("label", { class: "nbd-unit" }, this.epochs, h("span", { "aria-hidden": "true" }, "epochs")), this.start), this.rerun, this.rerunNote)),
      this.outcome);
  }

  // A control the person is using is theirs: focused, or asked for a moment ago.
  inUse(node) {
    const focused = node.getRootNode().activeElement === node;
    return focused || Date.now() - (node.nbdTouched ?? 0) < IN_USE_MS;
  }

  touch(...nodes) {
    for (const node of nodes) node.nbdTouched = Date.now();
    setTimeout(() => this.apply(), IN_USE_MS + 50);
  }

  put(node, value) {
    if (!this.inUse(node) && node.value !== String(value)) node.value = String(value);
  }

  chose(...nodes) {
    for (const node of nodes) node.nbdTouched = 0;
    this.apply();
  }

  dragRate() {
    const value = Number((10 ** (Number(this.lr.value) / 100 - 7)).toPrecision(3));
    this.touch(this.lr, this.lrText);
    this.lrText.value = rate(value);
    this.lr.setAttribute("aria-valuetext", rate(value));
    this.sendRate(value, this.group.value);
  }

  typeRate() {
    const value = Number(this.lrText.value.trim().replace(",", "."));
    const good = Number.isFinite(value) && value >= 0 && this.lrText.value.trim() !== "";
    this.lrText.setAttribute("aria-invalid", String(!good));
    if (!good) return;
    this.touch(this.lr, this.lrText);
    this.lr.value = String(position(value));
    this.sendRate(value, this.group.value);
  }

  changeClip() {
    const threshold = Number(this.threshold.value);
    const good = this.clip.value === "off" || (Number.isFinite(threshold) && threshold > 0);
    this.threshold.setAttribute("aria-invalid", String(!good));
    this.threshold.disabled = this.clip.value === "off";
    this.touch(this.clip, this.threshold);
    if (good) this.sendClip(this.clip.value, Math.max(0, threshold || 0));
  }

  dragDropout() {
    this.touch(this.dropout);
    setText(this.dropoutText, Number(this.dropout.value).toFixed(2));
    this.sendDropout(Number(this.dropout.value), this.layer.value);
  }

  predict() {
    const seconds = this.state?.rerun.epoch_s;
    setText(this.cost, seconds ? about(seconds * Math.max(1, Number(this.epochs.value))) : "");
  }

  update(state) { this.state = state; this.apply(); }

  report(outcome) {
    const text = outcome ? `${outcome.ok ? "✓" : "✕"} ${outcome.text}` : "";
    setText(this.outcome, text);
    this.outcome.classList.toggle("nbd-refused", Boolean(outcome && !outcome.ok));
    this.outcome.title = outcome ? outcome.where : "";
  }

  close(reason) {
    this.fields.disabled = Boolean(reason);
    if (!reason) return;
    setText(this.outcome, reason);
    this.outcome.classList.remove("nbd-refused");
  }

  apply() {
    const state = this.state;
    if (!state) return;
    this.applyRate(state.lr);
    this.put(this.clip, state.clip.mode);
    if (state.clip.threshold !== null) this.put(this.threshold, state.clip.threshold);
    this.threshold.disabled = this.clip.value === "off";
    setText(this.clipNote, state.clip.note);
    this.applyDropout(state.dropout);
    setOptions(this.scheme, state.init.schemes);
    this.init.disabled = !state.init.enabled;
    setText(this.initNote, state.init.note);
    setOptions(this.start, state.rerun.starts);
    this.rerun.disabled = !state.rerun.enabled;
    setText(this.rerunNote, state.rerun.note);
    this.predict();
  }

  applyRate({ groups, optimizer, note }) {
    setText(this.optimizer, optimizer);
    setOptions(this.group, [["", "all groups"], ...groups.map(({ name }) => [name, name])]);
    this.group.hidden = groups.length < 2;
    const group = groups.find(({ name }) => name === this.group.value) ?? groups[0];
    for (const node of [this.lr, this.lrText]) node.disabled = !group;
    if (!group) return;
    if (group.asked !== null) {
      this.put(this.lr, position(group.asked));
      this.put(this.lrText, rate(group.asked));
      if (!this.inUse(this.lr)) this.lr.setAttribute("aria-valuetext", rate(group.asked));
    }
    fill(this.lr);
    setText(this.lrNote, this.group.value ? group.note : note);
  }

  applyDropout({ layers, note }) {
    setOptions(this.layer, [["", "all layers"], ...layers.map(({ name }) => [name, name])]);
    this.layer.hidden = layers.length < 2;
    const layer = layers.find(({ name }) => name === this.layer.value) ?? layers[0];
    this.dropout.disabled = this.layer.disabled = !layer;
    setText(this.dropoutNote, note);
    if (layer && layer.p !== null) this.put(this.dropout, layer.p);
    setText(this.dropoutText, layer ? Number(this.dropout.value).toFixed(2) : "–");
    fill(this.dropout);
  }
}

function position(value) {
  return value > 0 ? Math.round(Math.min(800, Math.max(0, (Math.log10(value) + 7) * 100))) : 0;
}

function fill(slider) {
  slider.style.setProperty("--nbd-at", `${(100 * (slider.value - slider.min)) / (slider.max - slider.min)}%`);
}

// The second click of a double click (its count is in event.detail) is not a second wish.
function guarded(act) {
  return (event) => { if (event.detail < 2) act(); };
}

// --- run bar, findings, runs

class RunBar {
  constructor(command) {
    const button = (text, icon, name) => h("button", { type: "button", onclick: guarded(() => command(name)) }, h("span", { "aria-hidden": "true" }, icon), text);
    this.icon = h("span", { "aria-hidden": "true" }, "▶ ");
    this.label = h("span", {}, "Run");
    this.toggle = h("button", { type: "button", class: "nbd-main", disabled: true, onclick: guarded(() => command(this.label.textContent.toLowerCase())) }, this.icon, this.label);
    this.step = h("button", { type: "button", disabled: true, onclick: () => command("step") }, h("span", { "aria-hidden": "true" }, "⇥ "), "Step");
    this.epoch = button("+1 epoch", "", "epoch");
    this.stop = button("Stop", "■ ", "stop");
    this.fill = h("div", { class: "nbd-fill" });
    this.dot = h("div", { class: "nbd-dot" });
    this.ticks = h("div", { class: "nbd-ticks" });
    this.progress = h("div", { class: "nbd-progress", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100 },
      h("div", { class: "nbd-track" }, this.fill), this.ticks, this.dot);
    this.word = h("span", { class: "nbd-pill nbd-state", role: "status" });
    this.pills = h("span", { class: "nbd-pills" });
    this.model = h("span", { class: "nbd-pill", title: "the run that the model's weights belong to" }, "in the model: ", this.modelName = h("b"));
    this.message = h("div", { class: "nbd-message", role: "status" });
    this.node = h("section", { class: "nbd-bar", "aria-label": "Run" },
      this.fields = h("fieldset", { class: "nbd-buttons" }, this.toggle, this.step, this.epoch, this.stop), this.progress,
      h("div", { class: "nbd-pills" }, this.word, this.pills, this.model), this.message);
  }

  update({ buttons, progress, pills, state, message, model, colour }) {
    setText(this.label, buttons.toggle.label);
    setText(this.icon, buttons.toggle.label === "Pause" ? "❚❚ " : "▶ ");
    this.toggle.disabled = !buttons.toggle.enabled;
    for (const name of ["step", "epoch", "stop"]) this[name].disabled = !buttons[name];
    this.fill.style.width = `${100 * progress.furthest}%`;
    this.dot.style.left = `${100 * progress.model}%`;
    if (this.ticks.childElementCount !== Math.max(0, progress.ticks - 1)) {
      const marks = Array.from({ length: Math.max(0, progress.ticks - 1) }, () => h("i"));
      marks.forEach((mark, index) => { mark.style.left = `${(100 * (index + 1)) / progress.ticks}%`; });
      this.ticks.replaceChildren(...marks);
    }
    this.progress.setAttribute("aria-valuenow", String(Math.round(100 * progress.model)));
    this.progress.setAttribute("aria-valuetext", progress.text);
    this.progress.title = progress.text;
    setText(this.word, state);
    this.word.dataset.state = state;
    this.pills.replaceChildren(...pills.map(([before, value, after]) =>
      h("span", { class: "nbd-pill" }, before ? `${before} ` : "", h("b", {}, value), after)));
    setText(this.modelName, model);
    this.dot.style.borderColor = `var(--nbd-${colour})`;
    setText(this.message, message);
    this.message.dataset.state = state;
  }

  close(reason) {
    this.fields.disabled = Boolean(reason);
    if (!reason) return;
    setText(this.word, "closed");
    this.word.dataset.state = "closed";
    setText(this.message, reason);
  }
}

class Findings {
  constructor() {
    this.summary = h("span", { class: "nbd-read" });
    this.cards = h("div", { class: "nbd-cards" });
    this.node = h("section", { class: "nbd-panel nbd-findings", "aria-label": "Findings" },
      h("header", {}, h("h3", {}, "Findings"), this.summary), this.cards);
    this.known = new Map();
  }

  update({ summary, cards }) {
    setText(this.summary, summary);
    const nodes = new Map(cards.map((card) => [JSON.stringify(card), card]));
    const known = new Map([...nodes].map(([key, card]) => [key, this.known.get(key) ?? this.card(card)]));
    this.known = known;
    this.cards.replaceChildren(...(known.size ? known.values() : [h("p", { class: "nbd-calm" }, "Nothing to report.")]));
  }

  card({ severity, title, why, detail, where }) {
    return h("article", { class: `nbd-card nbd-${severity}` },
      h("div", { class: "nbd-card-head" }, h("b", {}, title), h("span", { class: "nbd-severity" }, severity)),
      h("p", {}, why), h("p", { class: "nbd-where" }, where),
      detail ? h("details", {}, h("summary", {}, "Detail"), h("pre", { tabindex: "0" }, detail)) : null);
  }
}

class Runs {
  constructor(command) {
    this.command = command;
    this.head = h("tr");
    this.body = h("tbody");
    this.rows = new Map();
    this.node = h("section", { class: "nbd-panel nbd-runs", "aria-label": "Runs" }, h("header", {}, h("h3", {}, "Runs"), this.read = h("span", { class: "nbd-read" })),
      h("div", { class: "nbd-scroll", tabindex: "0" }, h("table", {}, h("thead", {}, this.head), this.body)));
  }

  update({ heads, rows }, enabled) {
    if (this.head.dataset.heads !== JSON.stringify(heads)) {
      this.head.replaceChildren(...heads.map((text) => h("th", { scope: "col" }, text)), h("th", { scope: "col" }, h("span", { class: "nbd-hidden" }, "model")));
      this.head.dataset.heads = JSON.stringify(heads);
    }
    const kept = new Map(rows.map((row) => [row.name, this.rows.get(row.name) ?? this.row(row)]));
    const order = [...kept.values()].map(({ node }) => node);
    if (order.length !== this.body.childElementCount || order.some((node, index) => this.body.children[index] !== node)) this.body.replaceChildren(...order);
    this.rows = kept;
    for (const row of rows) this.fill(kept.get(row.name), row, enabled);
    setText(this.read, rows.length > 1 ? `${rows.length} runs` : "");
  }

  row({ name, colour }) {
    const swatch = h("i", { class: "nbd-swatch", "aria-hidden": "true" });
    swatch.style.background = `var(--nbd-${colour})`;
    const model = h("span", { class: "nbd-mute" }, "● in the model");
    const checkout = h("button", { type: "button", title: `Put the weights of ${name} into the model`, onclick: guarded(() => this.command("checkout", { run: name })) }, "Check out");
    const node = h("tr", {}, h("th", { scope: "row" }, swatch, h("span", {}, name)));
    return { node, model, checkout, cells: [], last: h("td", {}, model, checkout) };
  }

  fill(row, { cells, in_model }, enabled) {
    if (row.cells.length !== cells.length) {
      row.cells = cells.map(() => h("td"));
      row.node.replaceChildren(row.node.firstElementChild, ...row.cells, row.last);
    }
    cells.forEach((text, index) => setText(row.cells[index], text));
    row.node.classList.toggle("nbd-on", in_model);
    row.model.hidden = !in_model;
    row.checkout.hidden = in_model;
    row.checkout.disabled = !enabled;
  }
}

// --- the view: puts the parts together, tells the kernel when it is ready, awake, done drawing, gone

class Board {
  constructor(model, el) {
    this.model = model;
    this.id = `v${Math.random().toString(36).slice(2)}${Date.now().toString(36)}`;
    this.parts = new Map();
    this.toAcknowledge = null;
    this.loader = plotlyOfPage();
    const command = (name, rest = {}) => { if (!this.closed) this.send("command", { command: name, ...rest }); };
    this.bar = new RunBar(command);
    this.controls = new Controls(command);
    this.findings = new Findings();
    this.runs = new Runs(command);
    this.log = h("input", { type: "checkbox", onchange: () => { this.logChosen = true; this.charts.loss.dirty = true; this.schedule(); } });
    this.charts = {
      loss: new Chart("loss", h("label", { class: "nbd-switch" }, "log", this.log)),
      gradient_flow: new Chart("gradient_flow"),
      activations: new Chart("activations"),
    };
    this.root = h("div", { class: "nbd" }, h("div", { class: "nbd-grid" }, this.bar.node, this.controls.node,
      ...Object.values(this.charts).map(({ node }) => node), this.findings.node, this.runs.node));
    el.append(this.root);
    this.colours = new Colours(this.root);
    this.connect();
  }

  connect() {
    const page = new AbortController();
    const listen = { signal: page.signal };
    this.disconnect = [() => page.abort()];
    const hear = (content, buffers) => this.hear(content, buffers);
    this.model.on("msg:custom", hear);
    const gone = () => { this.close("no kernel listens: run the cell again"); };
    this.model.on("comm_live_update", gone);
    this.disconnect.push(() => { this.model.off("msg:custom", hear); this.model.off("comm_live_update", gone); });
    const seen = new IntersectionObserver((entries) => { this.near = entries.at(-1).isIntersecting; this.wakeOrSleep(); }, { rootMargin: "200px" });
    seen.observe(this.root);
    document.addEventListener("visibilitychange", () => this.wakeOrSleep(), listen);
    globalThis.addEventListener("pagehide", () => this.sleep(), listen);
    const sized = new ResizeObserver(() => { for (const chart of Object.values(this.charts)) chart.dirty = true; this.schedule(); });
    for (const node of [this.root, ...Object.values(this.charts).map(({ plot }) => plot)]) sized.observe(node);
    const themed = new MutationObserver(() => { this.retheme(); setTimeout(() => this.retheme(), 400); });
    for (const node of [document.body, document.documentElement]) themed.observe(node, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class", "theme"] });
    this.disconnect.push(() => { seen.disconnect(); sized.disconnect(); themed.disconnect(); });
    this.loader.promise.then(() => { for (const chart of Object.values(this.charts)) chart.dirty = true; this.schedule(); });
  }

  send(type, rest = {}) {
    try {
      this.model.send({ type, view: this.id, ...rest });
    } catch (error) {
      console.debug("nbdebug: nothing listens", error);
      if (!this.removed) this.close("no kernel listens: run the cell again");
    }
  }

  wakeOrSleep() {
    const awake = Boolean(this.near) && document.visibilityState === "visible";
    if (awake && !this.awake) {
      this.awake = true;
      this.sign = setInterval(() => this.signOfLife(), SIGN_MS);
      this.loader.join(this.id, () => this.send("plotly"));
      this.send("ready");
      this.schedule();
    } else if (!awake) this.sleep();
  }

  sleep() {
    if (!this.awake) return;
    this.awake = false;
    clearInterval(this.sign);
    this.send("bye");
  }

  // When it is quiet, say again what was drawn last: a kernel that lost a message, or this view, starts anew. ipykernel
  // before 7.4 may leave a message lying until the next one comes (its #1554).
  signOfLife() {
    if (Date.now() - (this.heardAt ?? 0) >= SIGN_MS && !this.closed) this.send("ack", { number: this.drawn ?? -1 });
  }

  hear(content, buffers) {
    this.heardAt = Date.now();
    if (content.type === "plotly") this.loader.deliver(buffers[0]);
    else if (content.type === "closed") { this.ended = true; this.close("debugger closed"); }
    else if (content.type === "frame" && content.to.includes(this.id)) {
      this.take(content, buffers);
      if (this.closed && !this.ended) this.reopen();
      this.toAcknowledge = content.number;
      this.schedule();
    }
  }

  take({ whole }, [head, numbers]) {
    const { gone, arrays, parts } = JSON.parse(new TextDecoder().decode(head));
    if (whole) for (const chart of Object.values(this.charts)) chart.arrays.clear();
    for (const key of gone) if (key.length > 1) this.charts[key[0]].drop(key);
    const values = new Float64Array(numbers.buffer.slice(numbers.byteOffset, numbers.byteOffset + numbers.byteLength));
    let at = 0;
    for (const [[panel, , trace, attribute], shape, kept] of arrays) {
      const size = shape.reduce((a, b) => a * b, 1);
      const flat = new Float64Array(size);
      if (kept) flat.set(this.charts[panel].arrays.get(trace)[attribute].subarray(0, kept));
      flat.set(values.subarray(at, at + size - kept), kept);
      at += size - kept;
      this.charts[panel].setArray(trace, attribute, shape.length === 2 ? rowsOf(flat, shape) : flat);
    }
    for (const [key, value] of parts) {
      if (key.length > 1) this.charts[key[0]].set(key[1], value);
      else { this.parts.set(key[0], value); this.changed = (this.changed ?? new Set()).add(key[0]); }
    }
  }

  schedule() {
    if (!this.frame && !this.removed) this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  async draw() {
    if (this.drawing) { this.again = true; return; }
    this.drawing = true;
    const number = this.toAcknowledge;
    this.drawParts();
    try {
      const dirty = Object.values(this.charts).filter((chart) => chart.dirty);
      await Promise.all(dirty.map((chart) => chart.draw(this.loader.plotly, this.colours, chart.name === "loss" ? (layout) => this.adjustLoss(layout) : null)));
    } catch (error) {
      console.warn("nbdebug: a chart could not be drawn", error);
    }
    this.drawing = false;
    if (number !== null && this.awake && this.loader.plotly && !this.removed) {
      if (this.toAcknowledge === number) this.toAcknowledge = null;
      this.drawn = number;
      this.send("ack", { number });
    }
    if (this.again) { this.again = false; this.schedule(); }
    else if (this.awake && Object.values(this.charts).some((chart) => chart.dirty)) setTimeout(() => this.schedule(), RETRY_MS);
  }

  drawParts() {
    const changed = this.changed ?? new Set();
    this.changed = null;
    if (changed.has("palette")) { this.colours.names = this.parts.get("palette"); this.retheme(); }
    if (changed.has("bar")) this.bar.update(this.parts.get("bar"));
    if (changed.has("controls")) this.controls.update(this.parts.get("controls"));
    if (changed.has("outcome")) this.controls.report(this.parts.get("outcome"));
    if (changed.has("findings")) this.findings.update(this.parts.get("findings"));
    if (this.parts.has("runs") && (changed.has("runs") || changed.has("controls"))) this.runs.update(this.parts.get("runs"), this.parts.get("controls").checkout && !this.closed);
    if (this.closed) this.sayClosed();
  }

  adjustLoss(layout) {
    if (!this.logChosen) this.log.checked = Boolean(layout.meta?.log);
    layout.yaxis = { ...layout.yaxis, type: this.log.checked ? "log" : "linear" };
  }

  retheme() {
    if (this.removed || !this.colours.read()) return;
    for (const chart of Object.values(this.charts)) chart.recolour();
    this.schedule();
  }

  // The picture stays; what acts is switched off. A frame from a kernel that came back switches it on again.
  close(reason) {
    this.closed = reason;
    (this.changed ??= new Set()).add("runs");
    this.schedule();
    if (!this.parts.has("bar")) this.sayClosed();
  }

  sayClosed() {
    this.bar.close(this.closed);
    this.controls.close(this.closed);
    this.root.classList.add("nbd-closed");
  }

  reopen() {
    this.closed = "";
    this.bar.close("");
    this.controls.close("");
    this.root.classList.remove("nbd-closed");
    this.changed = new Set(this.parts.keys());
    this.schedule();
  }

  remove() {
    this.sleep();
    this.removed = true;
    cancelAnimationFrame(this.frame);
    this.loader.leave(this.id);
    for (const end of this.disconnect) end();
    for (const chart of Object.values(this.charts)) chart.purge(this.loader.plotly);
  }
}

function rowsOf(flat, [rows, columns]) {
  return Array.from({ length: rows }, (_, row) => flat.subarray(row * columns, (row + 1) * columns));
}

export default {
  render({ model, el }) {
    const board = new Board(model, el);
    return () => board.remove();
  },
};
