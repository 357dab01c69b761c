// The search: what to try, how far it is, and what was found, as a picture and a table that light up together.

const ALL_COMBINATIONS = "all";
const MOST_TRIALS = 500;
const NEAR_PIXELS = 12;
const CHOICES = { clip: { off: null, none: null }, switch: { on: true, off: false, true: true, false: false }, number: {} };

// What is typed as values: "0.1, 0.01, off", or as a range: "1e-4 to 1". { list }, { low, high } or { wrong }.
function readValues(text, kind) {
  const choices = CHOICES[kind] ?? {};
  const ends = text.split(/\s*(?:\bto\b|…|\.\.+)\s*/i);
  if (ends.length === 2 && kind !== "switch") {
    const [low, high] = ends.map((end) => end.trim() === "" ? NaN : Number(end));
    if (!Number.isFinite(low) || !Number.isFinite(high)) return { wrong: "a range is two numbers, such as 1e-4 to 1" };
    return low < high ? { low, high } : { wrong: "a range begins with the lower end" };
  }
  const parts = text.split(/[\s,;]+/).filter(Boolean);
  const list = parts.map((part) => part.toLowerCase() in choices ? choices[part.toLowerCase()] : kind === "switch" ? NaN : Number(part));
  if (!parts.length) return { wrong: "type values, such as 0.1, 0.01, or a range, such as 1e-4 to 1" };
  const odd = parts.find((_, index) => typeof list[index] === "number" && !Number.isFinite(list[index]));
  return odd === undefined ? { list } : { wrong: `${odd} is ${kind === "switch" ? "neither on nor off" : "no number"}` };
}

// --- the picture: the line under the pointer, and the one picked, drawn over the plot without drawing it anew

class Parallel extends Chart {
  constructor(name, pick, over) {
    super(name);
    this.pick = pick;
    this.over = over;
    this.lines = { over: this.line("nbd-trial-over"), picked: this.line("nbd-trial-picked") };
    this.overlay = document.createElementNS(SVG, "svg");
    this.overlay.setAttribute("class", "nbd-trial-lines");
    this.overlay.setAttribute("aria-hidden", "true");
    this.overlay.append(this.lines.picked, this.lines.over);
    this.plot.after(this.overlay);
    this.shown = { over: null, picked: null };
    this.plot.addEventListener("pointermove", (event) => this.over(this.at(event)));
    this.plot.addEventListener("pointerleave", () => this.over(null));
    this.plot.addEventListener("click", (event) => { const number = this.at(event); if (number !== null) this.pick(number); });
  }

  line(look) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", look);
    return path;
  }

  get meta() { return this.patch?.layout?.meta ?? { heads: [], numbers: [], lines: [] }; }

  // The trial whose line is nearest, if it is near.
  at(event) {
    const layout = this.plot._fullLayout, { lines, numbers } = this.meta;
    if (!layout?.xaxis?.p2d || this.plot.style.visibility !== "visible" || !lines.length) return null;
    const { left, top } = this.plot.getBoundingClientRect(), { xaxis, yaxis } = layout;
    const place = Math.min(lines[0].length - 1, Math.max(0, xaxis.p2d(event.clientX - left - xaxis._offset)));
    const before = Math.min(Math.floor(place), lines[0].length - 2), share = place - before;
    const height = event.clientY - top - yaxis._offset;
    let best = null, nearest = NEAR_PIXELS;
    lines.forEach((line, index) => {
      const away = Math.abs(yaxis.d2p(line[before] + (line[before + 1] - line[before]) * share) - height);
      if (away < nearest) { nearest = away; best = numbers[index]; }
    });
    return best;
  }

  show(which, number) {
    this.shown[which] = number;
    this.lay();
  }

  lay() {
    const layout = this.plot._fullLayout, { lines, numbers } = this.meta, able = layout?.xaxis?.d2p && this.plot.style.visibility === "visible";
    for (const [which, path] of Object.entries(this.lines)) {
      const line = able ? lines[numbers.indexOf(this.shown[which])] : null;
      const points = line?.map((y, x) => `${(layout.xaxis._offset + layout.xaxis.d2p(x)).toFixed(1)} ${(layout.yaxis._offset + layout.yaxis.d2p(y)).toFixed(1)}`);
      path.setAttribute("d", points ? `M${points.join("L")}` : "");
    }
  }

  drawn() { this.lay(); }

  // The names of the axes as long as there is room; the first and the last may lean over the margin.
  adjust(_, layout) {
    const { heads } = layout.meta, room = (layout.width - layout.margin.l - layout.margin.r) / Math.max(1, heads.length - 1);
    const letters = Math.max(4, Math.floor((Math.min(room, 2 * layout.margin.l + 20) - 8) / 6.6));
    layout.annotations = layout.annotations.map((note, index) => index < heads.length ? { ...note, text: plain(shorten(heads[index], letters)), hovertext: plain(heads[index]) } : note);
  }
}

// --- one knob to try: which, and its values

class KnobRow {
  constructor(remove, changed) {
    this.knob = h("select", { "aria-label": "Knob to try", onchange: () => { this.own = false; this.suggest(); changed(); } });
    this.text = h("input", { type: "text", autocomplete: "off", spellcheck: "false", oninput: () => { this.own = true; changed(); } });
    this.remove = h("button", { type: "button", class: "nbd-tool", onclick: () => remove(this) }, icon(CROSS));
    this.node = h("div", { class: "nbd-seek-knob" }, this.knob, this.text, this.remove);
  }

  offer(knobs, taken) {
    this.usual = new Map(knobs.map(([name, usual]) => [name, usual]));
    this.kinds = new Map(knobs.map(([name, , kind]) => [name, kind]));
    setOptions(this.knob, knobs.filter(([name]) => name === this.knob.value || !taken.has(name)).map(([name]) => [name, spaced(name)]));
    this.suggest();
  }

  suggest() {
    const name = this.knob.value, shown = spaced(name);
    if (!this.own && this.suggested !== name) { this.text.value = this.usual.get(name) ?? ""; this.suggested = name; }
    this.text.setAttribute("aria-label", `Values of ${shown}`);
    this.remove.setAttribute("aria-label", `Don't try ${shown}`);
    this.remove.title = "don't try this one";
  }
}

class SearchForm {
  constructor(command) {
    this.command = command;
    this.rows = [];
    const field = (label, rest, look = "number") => {
      const input = h("input", { type: look, "aria-label": label, oninput: () => this.judge(), onkeydown: (event) => this.key(event), ...rest });
      return { input, node: h("label", { class: "nbd-unit" }, h("span", {}, label), input) };
    };
    const choice = (label, ...options) => {
      const select = h("select", { "aria-label": label, onchange: () => this.judge() }, ...options);
      return { input: select, node: h("label", { class: "nbd-unit" }, h("span", {}, label), select) };
    };
    const option = (value, text) => h("option", { value }, text);
    this.list = h("div", { class: "nbd-seek-knobs", role: "group", "aria-label": "Knobs to try", onkeydown: (event) => this.key(event) });
    this.add = h("button", { type: "button", class: "nbd-plain nbd-seek-add", onclick: guarded(() => { this.more(); this.rows.at(-1)?.text.focus(); }) }, "+ add a knob");
    this.length = field("train each for", { min: 1, step: 1, value: 1 });
    this.unit = choice("counted in", option("epochs", "epochs"), option("steps", "steps"));
    this.trials = field("trials", { placeholder: ALL_COMBINATIONS, inputmode: "numeric", title: "so many settings; left empty, all combinations of the values" }, "text");
    this.measure = choice("judge by");
    this.measure.input.addEventListener("change", () => { this.follow(); this.judge(); });
    this.better = choice("better is", option("lower", "lower"), option("higher", "higher"));
    this.engine = choice("choose settings");
    this.seed = field("seed", { min: 0, step: 1, value: 0 });
    this.prune = h("input", { type: "checkbox", checked: true });
    this.button = h("button", { type: "button", class: "nbd-main", onclick: guarded(() => this.ask()) }, "Search");
    this.cost = h("p", { class: "nbd-calm", role: "status" });
    const pairs = [this.length, this.unit, this.measure, this.better, this.trials, this.engine].map(({ node }) => node);
    this.node = h("fieldset", { class: "nbd-seek-form" }, this.list, this.add, h("div", { class: "nbd-seek-fields" }, ...pairs, this.seed.node,
      h("label", { class: "nbd-switch nbd-seek-prune", title: "a trial that is worse than the median of those before it, at the same place, is ended" }, this.prune, "end hopeless ones early")), this.button);
  }

  key(event) {
    if (event.key !== "Enter" || event.isComposing || event.target.tagName !== "INPUT") return;
    event.preventDefault();
    this.ask();
  }

  more() {
    const row = new KnobRow((gone) => this.less(gone), () => { this.offer(); this.judge(); });
    this.rows.push(row);
    this.list.append(row.node);
    this.offer();
    this.judge();
  }

  less(row) {
    const at = this.rows.indexOf(row);
    this.rows.splice(at, 1);
    row.node.remove();
    (this.rows[Math.max(0, at - 1)]?.text ?? this.add).focus();
    this.offer();
    this.judge();
  }

  offer() {
    if (!this.state) return;
    for (const row of this.rows) row.offer(this.state.knobs, new Set(this.rows.filter((other) => other !== row).map(({ knob }) => knob.value)));
    for (const { remove } of this.rows) remove.disabled = this.rows.length < 2;
    this.add.disabled = this.rows.length >= this.state.knobs.length;
  }

  update(state) {
    const measures = JSON.stringify(state.measures);
    this.state = state;
    setOptions(this.measure.input, state.measures.map(([name]) => [name, name.replace("val_", "validation ").replace(/^loss$/, "training loss")]));
    setOptions(this.engine.input, state.engines.map(([name, text]) => [name, text]));
    for (const [index, [, , why]] of state.engines.entries()) {
      const option = this.engine.input.options[index];
      option.disabled = Boolean(why);
      option.title = why;
    }
    if (measures !== this.measures) { this.measures = measures; this.follow(); }
    if (!this.rows.length && state.knobs.length) this.more();
    this.offer();
    this.judge();
  }

  follow() { this.better.input.value = this.state.measures.find(([name]) => name === this.measure.input.value)?.[1] ?? "lower"; }

  // What is asked for, and what is wrong with it, in words.
  read() {
    const wrong = [], space = {}, whole = (input) => input.value.trim() === "" ? NaN : Number(input.value);
    const mark = (input, bad) => { input.setAttribute("aria-invalid", String(Boolean(bad))); if (bad) wrong.push(bad); };
    let settings = 1, ranges = false;
    for (const { knob, text, kinds } of this.rows) {
      const { list, low, high, wrong: odd } = readValues(text.value, kinds?.get(knob.value));
      mark(text, odd && `${spaced(knob.value)}: ${odd}`);
      space[knob.value] = list ?? { low, high };
      settings *= list?.length ?? 1;
      ranges ||= !list && !odd;
    }
    const length = whole(this.length.input), seed = whole(this.seed.input), trials = whole(this.trials.input), all = this.trials.input.value.trim() === "";
    const optuna = this.engine.input.value === "optuna";
    mark(this.length.input, !(Number.isInteger(length) && length >= 1) && "train each for a whole number, 1 or more");
    mark(this.seed.input, !(Number.isInteger(seed) && seed >= 0) && "the seed is a whole number, 0 or more");
    const few = all ? ranges ? "of a range so many are drawn: say how many trials" : optuna ? "say how many trials" : settings > MOST_TRIALS && `${count(settings)} combinations are too many: say how many trials`
      : !(Number.isInteger(trials) && trials >= 1 && trials <= MOST_TRIALS) && "trials are a whole number, from 1 to 500";
    mark(this.trials.input, few);
    return { wrong, space, length, seed, trials: all ? null : trials, planned: all ? settings : trials };
  }

  judge() {
    if (!this.state) return;
    const { wrong, length, planned } = this.read(), { step_s: each, batches, restore_s: restore } = this.state;
    const steps = this.unit.input.value === "steps" ? length : batches ? length * batches : null;
    const took = steps && each ? `, at most ${about(planned * (steps * each + restore))}` : "";
    const long = steps ? ` of ${plural(steps, "step")}` : ` of ${plural(length, "epoch")}`;
    setText(this.cost, wrong[0] || `${plural(planned, "trial")}${long}${took}; then everything is as it was`);
    this.cost.classList.toggle("nbd-refused", wrong.length > 0);
    this.button.disabled = wrong.length > 0;
  }

  ask() {
    const { wrong, space, length, seed, trials } = this.read();
    this.judge();
    if (wrong.length || this.button.matches(":disabled")) return;
    this.command("search", { space, length, by_epochs: this.unit.input.value === "epochs", trials, seed, measure: this.measure.input.value,
      lower: this.better.input.value === "lower", prune: this.prune.checked, engine: this.engine.input.value });
  }
}

// --- what was found, the best first

class Trials {
  constructor(command, { pick, over }) {
    Object.assign(this, { command, pick, over });
    this.rows = new Map();
    this.about = h("p", { class: "nbd-calm" });
    this.note = h("p", { class: "nbd-seek-note" });
    this.go = h("button", { type: "button", class: "nbd-main", onclick: guarded(() => this.goOn()) }, "Go on with the best");
    this.head = h("tr");
    this.body = h("tbody");
    this.scroll = h("div", { class: "nbd-scroll", tabindex: "0", "aria-label": "Trials, the best first", role: "region" }, h("table", { class: "nbd-trials" }, h("thead", {}, this.head), this.body));
    this.node = h("div", { class: "nbd-seek-found", hidden: true }, h("div", { class: "nbd-line" }, this.about, this.go), this.note, this.scroll);
  }

  goOn() { const best = this.state.rows.find(({ number }) => number === this.state.best); if (best) this.command("checkout", { run: best.run }); }

  update(state, why, stored) {
    this.node.hidden = !state;
    if (!state) { this.rows.clear(); return; }
    const key = JSON.stringify([state, why, stored]);
    if (this.shown === key) return;
    this.shown = key;
    this.state = state;
    setText(this.about, state.about);
    setText(this.note, state.note);
    this.note.hidden = !state.note;
    const best = state.rows.find(({ number }) => number === state.best);
    this.go.hidden = stored || !best;
    this.go.disabled = Boolean(why) || !best?.able || best.in_model;
    this.go.title = why || (best?.in_model ? "the model holds it" : "put the best one's weights into the model");
    this.head.replaceChildren(...state.heads.map((text) => h("th", { scope: "col" }, text)), h("th", { scope: "col", class: "nbd-acts" }, h("span", { class: "nbd-hidden" }, "actions")));
    const kept = new Map(state.rows.map((row) => [row.run, this.rows.get(row.run) ?? this.row(row)]));
    arrange(this.body, [...kept.values()].map(({ node }) => node));
    this.rows = kept;
    for (const row of state.rows) this.fill(kept.get(row.run), row, why, stored);
  }

  row({ number, run }) {
    const row = { number, cells: [] };
    row.show = h("button", { type: "button", class: "nbd-trial", "aria-pressed": "false", "aria-label": `Show trial ${number} in the picture`, onclick: () => this.pick(number) }, String(number));
    row.model = h("span", { class: "nbd-mute" }, "● in the model");
    row.checkout = h("button", { type: "button", "aria-label": `Check out trial ${number}`, onclick: guarded(() => this.command("checkout", { run })) }, "Check out");
    row.name = h("span", { class: "nbd-text" });
    row.node = h("tr", { onpointerenter: () => this.over(number), onpointerleave: () => this.over(null), onfocusin: () => this.over(number), onfocusout: () => this.over(null) },
      h("th", { scope: "row" }, row.show));
    return row;
  }

  fill(row, { cells, able, in_model: held, number }, why, stored) {
    if (row.cells.length !== cells.length) {
      row.cells = cells.map(() => h("td"));
      row.cells.at(-2).append(row.name);
      row.node.replaceChildren(row.node.firstElementChild, ...row.cells, h("td", { class: "nbd-acts" }, row.model, row.checkout));
    }
    cells.forEach((text, index) => setText(index === cells.length - 2 ? row.name : row.cells[index], text));
    row.name.title = cells.at(-2);
    row.cells[0].classList.toggle("nbd-best", number === this.state.best);
    row.model.hidden = !held;
    row.checkout.hidden = held || stored;
    row.checkout.disabled = Boolean(why) || !able;
    row.checkout.title = why || (able ? "put its weights into the model" : "this run was deleted");
  }

  // The rows of these trials stand out; the one picked comes into sight within the table.
  light(over, picked, follow) {
    for (const row of this.rows.values()) {
      row.node.classList.toggle("nbd-over", row.number === over);
      row.node.classList.toggle("nbd-on", row.number === picked);
      row.show.setAttribute("aria-pressed", String(row.number === picked));
      if (row.number !== (follow ?? null)) continue;
      const { top, bottom } = row.node.getBoundingClientRect(), box = this.scroll.getBoundingClientRect(), head = this.head.offsetHeight;
      if (top < box.top + head) this.scroll.scrollTop -= box.top + head - top;
      else if (bottom > box.bottom) this.scroll.scrollTop += bottom - box.bottom;
    }
  }
}

class Search {
  constructor(command) {
    this.closed = "";
    this.over = this.picked = null;
    this.form = new SearchForm(command);
    const hover = (number, follow) => { if (number !== this.over) { this.over = number; this.light(follow ? number : null); } };
    const pick = (number, follow) => { this.picked = this.picked === number ? null : number; this.light(follow ? number : null); };
    this.chart = new Parallel("search", (number) => pick(number, true), (number) => hover(number, true));
    this.trials = new Trials(command, { pick: (number) => pick(number, false), over: (number) => hover(number, false) });
    this.doing = h("span", { role: "status" });
    this.fill = h("div", { class: "nbd-fill" });
    this.cancel = h("button", { type: "button", onclick: guarded(() => command("pause")) }, "Cancel the search");
    this.progress = h("div", { class: "nbd-seek-doing", hidden: true }, this.doing, h("div", { class: "nbd-share", "aria-hidden": "true" }, this.fill), this.cancel);
    this.refusal = h("p", { class: "nbd-refused", role: "status" });
    this.node = h("div", { class: "nbd-seek" }, h("div", { class: "nbd-seek-side" }, this.form.node, this.form.cost, this.progress, this.refusal), h("div", { class: "nbd-seek-main" }, this.chart.node, this.trials.node));
  }

  update(state) {
    this.state = state;
    this.form.update(state);
    this.apply();
  }

  close(closed) { this.closed = closed; if (this.state) this.apply(); }

  apply() {
    const { blocked, stored, doing, refusal, found } = this.state, why = this.closed || blocked;
    this.form.node.disabled = Boolean(why);
    this.form.node.title = why;
    this.node.firstElementChild.hidden = stored;
    this.node.classList.toggle("nbd-seek-stored", stored);
    this.form.cost.hidden = Boolean(doing);
    this.progress.hidden = !doing || Boolean(this.closed);
    setText(this.doing, doing?.text ?? "");
    this.fill.style.width = `${100 * (doing?.share ?? 0)}%`;
    setText(this.refusal, doing ? "" : refusal);
    this.refusal.hidden = Boolean(doing) || !refusal;
    this.trials.update(found, why, stored);
    this.light(null);
  }

  light(follow) {
    this.chart.show("over", this.over);
    this.chart.show("picked", this.picked);
    this.trials.light(this.over, this.picked, follow);
  }
}
