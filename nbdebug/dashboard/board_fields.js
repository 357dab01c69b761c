// What the tab "Change" is made of: parts, numbers that are typed or stepped, and what became of what was asked.

// A titled part of the tab.
function part(title, head, ...children) {
  return h("section", { class: "nbd-part", "aria-label": title }, h("header", {}, h("h3", {}, title), ...head), ...children);
}

function spaced(name) {
  return name.replaceAll("_", " ");
}

function asNumber(text) {
  return text.trim() === "" ? NaN : Number(text.trim().replace(",", "."));
}

function asText(value) {
  return value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6) ? value.toExponential().replace("e+", "e") : String(value);
}

// What a number has to be, in words, if it is not; a range's missing ends are null.
function outOfRange({ low, high, low_open: lowOpen, high_open: highOpen, whole }, value) {
  const above = low === null || (lowOpen ? value > low : value >= low), below = high === null || (highOpen ? value < high : value <= high);
  if (Number.isFinite(value) && above && below && (!whole || Number.isInteger(value))) return "";
  const ends = [low === null ? "" : `${lowOpen ? "above" : "at least"} ${asText(low)}`, high === null ? "" : `${highOpen ? "below" : "at most"} ${asText(high)}`];
  return [whole ? "a whole number" : "a number", ends.filter(Boolean).join(" and ")].filter(Boolean).join(", ");
}

// The neighbour in 1, 2, 5, 10, 20 …; from 0 to `first`.
function nextOfSeries(value, up, first) {
  if (!(value > 0)) return up ? first : 0;
  const power = 10 ** Math.floor(Math.log10(value) + 1e-9), near = [0.5, 1, 2, 5, 10].map((each) => Number((each * power).toPrecision(1)));
  return up ? near.find((each) => each > value * (1 + 1e-9)) : near.findLast((each) => each < value * (1 - 1e-9));
}

// One step of an arrow key: by ratios, and close to 1, where shares such as 0.9, 0.99 live, by ratios of what is missing.
function stepped(value, up, range) {
  const share = range.low === 0 && range.high === 1;
  let next;
  if (range.whole) next = value + (up ? 1 : -1);
  else if (share && (up ? value >= 0.5 : value > 0.5)) next = Number((1 - nextOfSeries(1 - value, !up, 0)).toPrecision(6));
  else if (value < 0 || (value === 0 && range.high === 0)) next = -nextOfSeries(-value, !up, 0.1);
  else next = nextOfSeries(value, up, share ? 0.1 : 1e-4);
  return outOfRange(range, next) ? value : next;
}

// A field for a number. `ask` is called with a good one that was entered, `changed` whenever the text is another,
// `enter` instead of both by Enter. What the kernel says is shown as long as the person does not use the field.
class NumberField {
  constructor(label, { ask = () => {}, changed = () => {}, enter = null, optional = false, placeholder = "" } = {}) {
    Object.assign(this, { ask, changed, act: enter, optional, range: { low: null, high: null }, wanted: null, wrong: "" });
    this.askSoon = throttle((value) => this.ask(value));
    this.input = h("input", { type: "text", class: "nbd-amount", inputmode: "decimal", autocomplete: "off", spellcheck: "false", placeholder, "aria-label": label,
      oninput: () => { this.typed = null; this.check(); }, onchange: () => { if (this.input.value !== this.typed) this.enter(); },
      onkeydown: (event) => this.key(event), onblur: () => setTimeout(() => this.settle(), 0) });
  }

  get value() { return asNumber(this.input.value); }

  get empty() { return this.input.value.trim() === ""; }

  key(event) {
    if (event.key === "Enter" && !event.isComposing) { event.preventDefault(); if (this.act) this.act(); else this.enter(); }
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") { event.preventDefault(); this.step(event.key === "ArrowUp"); }
  }

  // By Enter, which JupyterLab keeps from making a change; leaving the field after that asks for nothing again.
  enter() {
    this.typed = this.input.value;
    this.touch();
    this.check();
    if (!this.wrong && !this.empty) this.ask(this.value);
  }

  step(up) {
    if (!Number.isFinite(this.value)) return;
    const next = stepped(this.value, up, this.range);
    this.input.value = this.typed = asText(next);
    this.touch();
    this.check();
    if (!this.wrong) this.askSoon(next);
  }

  check() {
    this.wrong = this.optional && this.empty ? "" : outOfRange(this.range, this.value);
    this.input.setAttribute("aria-invalid", String(Boolean(this.wrong)));
    this.changed();
  }

  touch() {
    this.input.nbdTouched = Date.now();
    setTimeout(() => this.settle(), IN_USE_MS + 50);
  }

  get inUse() { return this.input.getRootNode().activeElement === this.input || touchedLately(this.input); }

  put(value) { this.wanted = value; this.settle(); }

  settle() {
    if (this.wanted === null || this.inUse) return;
    const was = this.wrong;
    this.wrong = "";
    this.input.removeAttribute("aria-invalid");
    if (this.value !== this.wanted) this.input.value = asText(this.wanted);
    if (was) this.changed();
  }
}

// What became of the latest command of a part: a quiet line, or why it was refused.
class Answer {
  constructor() {
    this.node = h("pre", { class: "nbd-answer", role: "status", hidden: true });
  }

  update(answer) {
    this.node.hidden = !answer;
    if (!answer) return;
    const { ok, text, where } = answer;
    setText(this.node, ok ? `✓ ${text.replace(/\.$/, "")} · ${where}` : text);
    this.node.title = where;
    this.node.classList.toggle("nbd-refusal", !ok);
    if (ok) this.node.removeAttribute("tabindex");
    else this.node.tabIndex = 0;
  }
}
