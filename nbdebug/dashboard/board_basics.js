// The dashboard in the browser: one instance per view of the widget. The kernel says what to show, in finished
// texts and float64 arrays; here it is laid out, drawn with plotly, and acknowledged once it is really on screen.
// Messages: see board.py. Nothing from the kernel is ever read as HTML. The files board*.js are one module, put
// together there: this one has what the others stand on, plotly.js, elements, colours.

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

function icon(path) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 16 16", class: "nbd-glyph", "aria-hidden": "true" })) node.setAttribute(name, value);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  node.append(line);
  return node;
}

// The second click of a double click (its count is in event.detail) is not a second wish.
function guarded(act) {
  return (event) => { if (event.detail < 2) act(); };
}

// Children in this order, none of them moved without need: a node that moves loses the focus.
function arrange(parent, nodes) {
  nodes.forEach((node, index) => { if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null); });
  while (parent.children.length > nodes.length) parent.lastElementChild.remove();
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

// A control the person is using is theirs for a moment after they touched it.
function touchedLately(node) {
  return Date.now() - (node.nbdTouched ?? 0) < IN_USE_MS;
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

function count(value) {
  return value.toLocaleString("en");
}

// As words.number: three significant digits.
function number(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "inf" : "-inf";
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1000 && size < 1e4) return Math.round(value).toLocaleString("en");
  if (size >= 1e-2 && size < 1000) return String(Number(value.toPrecision(3)));
  return value.toExponential(1).replace("e+", "e");
}

// Plotly reads <b> and &amp; as markup: see words.plain.
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

// A long name with its middle left out; the ends tell layers apart.
function shorten(name, width) {
  const letters = [...name], head = Math.floor((width - 1) / 3);
  return letters.length <= width ? name : `${letters.slice(0, head).join("")}…${letters.slice(letters.length - (width - 1 - head)).join("")}`;
}

function plural(amount, noun) {
  return `${count(amount)} ${noun}${amount === 1 ? "" : "s"}`;
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

  named(name) { return this.computed(name, this.computed("panel", "#fff")); }

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
