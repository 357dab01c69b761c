// The runs as a tree, the snapshots, and the verdict of the latest comparison.

const PENCIL = "M10.8 2.6l2.6 2.6-7.8 7.8-3.4.8.8-3.4zM9.2 4.2l2.6 2.6";
const PIN = "M5.5 2.5h5l-.7 4.6 2.4 2.1v1H3.8v-1l2.4-2.1zM8 10.2v3.8";
const CROSS = "M4 4l8 8M12 4l-8 8";
const SIGNS = { better: "✓", worse: "✕", "within noise": "≈", undecided: "?" };
const SEEDS = { fewest: 3, most: 12, usual: 6 };

// --- a text that can be rewritten where it stands: Enter or leaving it saves, Escape does not

class Edit {
  constructor({ label, hint, longest, save }) {
    this.save = save;
    this.value = "";
    this.hint = hint;
    this.text = h("span", { class: "nbd-text" });
    this.open = h("button", { type: "button", class: "nbd-icon", onclick: () => this.start() }, icon(PENCIL));
    this.input = h("input", { type: "text", maxlength: longest, hidden: true, onkeydown: (event) => this.key(event), onblur: () => this.end(true) });
    this.node = h("span", { class: "nbd-edit", ondblclick: () => { if (!this.open.disabled && !this.open.hidden) this.start(); } }, this.text, this.input, this.open);
    this.name(label);
  }

  name(label) {
    for (const node of [this.open, this.input]) node.setAttribute("aria-label", label);
    this.open.title = label;
  }

  put(value, blocked, shown = value) {
    this.value = value;
    setText(this.text, shown || this.hint);
    this.text.title = shown;
    this.text.classList.toggle("nbd-mute", !shown);
    this.open.disabled = Boolean(blocked);
  }

  start() {
    this.input.value = this.value;
    this.before = this.input.value.trim(); // in one line, which the value need not be
    this.toggle(true);
    this.input.select();
    this.input.focus();
  }

  key(event) {
    if (event.key === "Enter") this.end(true);
    else if (event.key === "Escape") this.end(false);
    else return;
    event.stopPropagation();
    event.preventDefault(); // the button that gets the focus would be pressed by the same Enter
    this.open.focus();
  }

  end(keep) {
    if (this.input.hidden) return;
    this.toggle(false);
    if (keep && this.input.value.trim() !== this.before) this.save(this.input.value.trim());
  }

  toggle(editing) {
    this.input.hidden = !editing;
    this.text.hidden = this.open.hidden = editing;
  }
}

// --- a button that asks once before it acts

class Confirm {
  constructor({ label, question, act, look }) {
    this.ask = h("button", { type: "button", class: look ? "nbd-icon" : undefined, "aria-label": label, title: label, onclick: guarded(() => this.toggle(true)) }, look ?? label);
    this.yes = h("button", { type: "button", onclick: guarded(() => { this.toggle(false); act(); }) }, "yes");
    this.no = h("button", { type: "button", onclick: () => this.toggle(false) }, "no");
    this.choice = h("span", { class: "nbd-confirm", hidden: true, onkeydown: (event) => { if (event.key === "Escape") this.toggle(false); } }, question, this.yes, this.no);
    this.choice.addEventListener("focusout", () => setTimeout(() => this.leave(), 200)); // some browsers focus no button
    this.label = label;
    this.node = h("span", {}, this.ask, this.choice);
  }

  leave() {
    if (!this.choice.contains(this.choice.getRootNode().activeElement)) this.toggle(false);
  }

  toggle(asking) {
    if (this.choice.hidden === !asking) return;
    const focused = this.choice.contains(this.choice.getRootNode().activeElement);
    this.choice.hidden = !asking;
    this.ask.hidden = asking;
    if (asking) this.yes.focus();
    else if (focused) this.ask.focus();
  }

  name(label) {
    this.label = label;
    this.ask.setAttribute("aria-label", label);
  }

  block(reason) {
    this.ask.disabled = Boolean(reason);
    this.ask.title = reason || this.label;
  }
}

class Runs {
  constructor(command, overlay) {
    this.command = command;
    this.overlay = overlay;
    this.head = h("tr");
    this.body = h("tbody");
    this.rows = new Map();
    this.seeds = h("input", { type: "number", min: SEEDS.fewest, max: SEEDS.most, step: 1, value: SEEDS.usual, "aria-label": "Other seeds for a comparison", oninput: () => this.predict() });
    this.how = h("label", { class: "nbd-unit", title: "A comparison reruns both runs under other seeds, to tell a difference from luck" }, "compare under", this.seeds, "other seeds");
    this.node = h("section", { class: "nbd-panel nbd-runs", "aria-label": "Runs" }, h("header", {}, h("h3", {}, "Runs"), this.read = h("span", { class: "nbd-read" }), this.how),
      h("div", { class: "nbd-scroll", tabindex: "0" }, h("table", { class: "nbd-tree" }, h("thead", {}, this.head), this.body)));
  }

  update(state, closed) {
    this.state = state;
    this.closed = closed;
    const { heads, rows, stored } = state;
    this.blocked = closed || state.blocked;
    if (this.head.dataset.heads !== JSON.stringify(heads)) {
      this.head.replaceChildren(...heads.map((text) => h("th", { scope: "col" }, text)), h("th", { scope: "col", class: "nbd-acts" }, h("span", { class: "nbd-hidden" }, "actions")));
      this.head.dataset.heads = JSON.stringify(heads);
    }
    const kept = new Map(rows.map((row) => [row.name, this.rows.get(row.name) ?? this.row(row.name)]));
    arrange(this.body, [...kept.values()].map(({ node }) => node));
    this.rows = kept;
    this.how.hidden = stored || !rows.some(({ compare }) => !compare);
    for (const row of rows) this.fill(kept.get(row.name), row);
    this.predict();
    setText(this.read, state.summary);
  }

  row(name) {
    const command = (what, rest = {}) => this.command(what, { run: name, ...rest });
    const row = { cells: [], shown: null };
    row.guides = h("span", { class: "nbd-guides", "aria-hidden": "true" });
    row.overlay = h("input", { type: "checkbox", onchange: () => { row.overlay.nbdTouched = Date.now(); this.overlay(name, row.overlay.checked); } });
    row.swatch = h("i", { class: "nbd-swatch", "aria-hidden": "true" });
    row.title = new Edit({ label: `Rename ${name}`, hint: "", longest: 200, save: (title) => command("edit_run", { title }) });
    row.pin = h("button", { type: "button", class: "nbd-icon", onclick: () => command("edit_run", { pinned: row.pin.getAttribute("aria-pressed") !== "true" }) }, icon(PIN));
    row.noise = h("small");
    row.note = new Edit({ label: `Note on ${name}`, hint: "–", longest: 2000, save: (note) => command("edit_run", { note }) });
    row.noteCell = h("td", { class: "nbd-note" }, row.note.node);
    row.caveat = h("span", { class: "nbd-caveat" });
    row.change = h("span", { class: "nbd-text" });
    row.model = h("span", { class: "nbd-mute" }, "● in the model");
    row.checkout = h("button", { type: "button", title: `Put the weights of ${name} into the model`, onclick: guarded(() => command("checkout")) }, "Check out");
    row.cost = h("span", { class: "nbd-mute" });
    row.compare = h("button", { type: "button", onclick: guarded(() => command("compare", { seeds: this.seedCount() })) }, "Compare ", row.cost);
    row.remove = new Confirm({ label: `Delete ${name}`, question: "delete? ", act: () => command("delete_run"), look: icon(CROSS) });
    row.last = h("td", { class: "nbd-acts" }, row.model, row.checkout, row.compare, row.remove.node);
    row.node = h("tr", {}, h("th", { scope: "row" }, h("div", { class: "nbd-run" }, row.guides, row.overlay, row.swatch, h("span", { class: "nbd-name" }, row.title.node, row.noise), row.pin)));
    return row;
  }

  fill(row, data) {
    const key = JSON.stringify([data, this.blocked, this.state.stored]);
    if (row.shown === key) return;
    row.shown = key;
    this.fillName(row, data);
    const { cells, best } = data;
    if (row.cells.length !== cells.length) {
      row.cells = cells.map(() => h("td"));
      row.cells[0].append(row.change, row.caveat);
      row.node.replaceChildren(row.node.firstElementChild, ...row.cells, row.noteCell, row.last);
    }
    setText(row.change, cells[0]);
    row.change.title = cells[0];
    setText(row.caveat, data.caveat);
    cells.slice(1).forEach((text, index) => setText(row.cells[index + 1], text));
    row.cells.forEach((cell, index) => {
      cell.classList.toggle("nbd-best", best.includes(index));
      if (index) cell.title = best.includes(index) ? "the best of all runs" : "";
    });
    this.fillActions(row, data);
  }

  fillName(row, { title, guides, colour, drawn, pinned, noise, note }) {
    row.guides.replaceChildren(...guides.map((kind) => h("i", { class: `nbd-${kind}` })));
    if (!touchedLately(row.overlay)) row.overlay.checked = drawn;
    row.overlay.disabled = Boolean(this.closed);
    row.overlay.setAttribute("aria-label", `Draw ${title}`);
    row.overlay.title = "draw it on the loss chart";
    row.swatch.style.background = `var(--nbd-${colour})`;
    row.title.name(`Rename ${title}`);
    row.remove.name(`Delete ${title}`);
    row.title.put(title, this.blocked);
    row.note.name(`Note on ${title}`);
    row.note.put(note, this.blocked);
    row.pin.setAttribute("aria-pressed", String(pinned));
    row.pin.setAttribute("aria-label", pinned ? `Unpin ${title}` : `Pin ${title}`);
    row.pin.title = pinned ? "pinned: its snapshots are kept" : "pin: keep its snapshots";
    row.pin.disabled = Boolean(this.blocked);
    setText(row.noise, noise);
  }

  fillActions(row, { in_model, compare, delete: kept }) {
    const { stored } = this.state;
    row.node.classList.toggle("nbd-on", in_model);
    row.model.hidden = !in_model;
    row.checkout.hidden = in_model || stored;
    row.checkout.disabled = Boolean(this.blocked);
    row.compare.hidden = stored || Boolean(compare);
    row.compare.disabled = Boolean(this.blocked);
    row.remove.node.hidden = row.title.open.hidden = row.note.open.hidden = stored;
    row.pin.hidden = stored && row.pin.getAttribute("aria-pressed") !== "true";
    row.remove.block(this.blocked || (in_model ? "the model holds it: check out another run first" : kept));
    for (const node of [row.checkout, row.compare]) if (this.blocked) node.title = this.blocked;
    if (!this.blocked) row.checkout.title = "put its weights into the model";
    if (!row.title.input.hidden) row.title.open.hidden = true;
    if (!row.note.input.hidden) row.note.open.hidden = true;
  }

  seedCount() {
    const seeds = Math.round(Number(this.seeds.value));
    return Math.min(SEEDS.most, Math.max(SEEDS.fewest, seeds || SEEDS.usual));
  }

  // Both runs, under each other seed, step by step.
  predict() {
    if (!this.state) return;
    const seeds = this.seedCount();
    this.seeds.setAttribute("aria-invalid", String(Number(this.seeds.value) !== seeds));
    for (const { name, steps } of this.state.rows) {
      const row = this.rows.get(name), seconds = 2 * seeds * steps * this.state.step_s;
      setText(row.cost, seconds ? about(seconds) : "");
      if (!this.blocked) row.compare.title = `rerun it and its parent under ${seeds} other seeds: ${plural(2 * seeds * steps, "step")}`;
    }
  }
}

class Snapshots {
  constructor(command) {
    this.command = command;
    this.rows = new Map();
    this.open = h("button", { type: "button", class: "nbd-plain", "aria-expanded": "false", onclick: () => this.toggle() }, this.arrow = h("span", { "aria-hidden": "true" }, "▸ "), "Snapshots ");
    this.read = h("span", { class: "nbd-read" });
    this.name = h("input", { type: "text", maxlength: 200, placeholder: "name", "aria-label": "Snapshot name", onkeydown: (event) => { if (event.key === "Enter") this.take(); } });
    this.button = h("button", { type: "button", onclick: guarded(() => this.take()) }, "Take snapshot");
    this.form = h("fieldset", { class: "nbd-take" }, this.name, this.button);
    this.body = h("tbody");
    this.more = h("p", { class: "nbd-calm" });
    const heads = ["snapshot", "run", "step", "taken", "size", "where", ""];
    this.table = h("div", { class: "nbd-scroll", tabindex: "0", hidden: true }, h("table", { class: "nbd-shots" }, h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col" }, text)))), this.body), this.more);
    this.node = h("div", { class: "nbd-snapshots" }, h("div", { class: "nbd-line" }, this.open, this.read, this.form), this.table);
  }

  toggle() {
    this.table.hidden = !this.table.hidden;
    this.open.setAttribute("aria-expanded", String(!this.table.hidden));
    setText(this.arrow, this.table.hidden ? "▸ " : "▾ ");
    this.apply();
  }

  take() {
    if (this.form.disabled) return;
    this.command("take_snapshot", { name: this.name.value });
    this.name.value = "";
  }

  update(state, { blocked, stored }, closed) {
    this.state = state;
    this.blocked = closed || blocked;
    this.stored = stored;
    this.apply();
  }

  apply() {
    setText(this.read, this.state.summary);
    this.node.hidden = this.stored && !this.state.rows.length;
    this.form.hidden = this.stored;
    this.form.disabled = Boolean(this.blocked);
    this.form.title = this.blocked;
    if (this.table.hidden) return;
    const { rows, more } = this.state;
    const kept = new Map(rows.map((row) => [row.name, this.rows.get(row.name) ?? this.row(row.name)]));
    arrange(this.body, [...kept.values()].map(({ node }) => node));
    this.rows = kept;
    for (const row of rows) this.fill(kept.get(row.name), row);
    setText(this.more, more);
  }

  row(name) {
    const row = { tags: h("span", { class: "nbd-tags" }), cells: Array.from({ length: 5 }, () => h("td")) };
    row.checkout = h("button", { type: "button", "aria-label": `Check out ${name}`, onclick: guarded(() => this.command("checkout", { snapshot: name })) }, "Check out");
    row.drop = new Confirm({ label: `Drop ${name}`, question: "drop? ", act: () => this.command("drop_snapshot", { name }), look: icon(CROSS) });
    row.acts = h("td", { class: "nbd-acts" }, row.checkout, row.drop.node);
    row.node = h("tr", {}, h("th", { scope: "row" }, h("span", { class: "nbd-text" }, name), row.tags), ...row.cells, row.acts);
    return row;
  }

  fill(row, { cells, tags, path }) {
    cells.forEach((text, index) => setText(row.cells[index], text));
    row.cells[4].title = path;
    if (row.tags.textContent !== tags.join("")) row.tags.replaceChildren(...tags.map((tag) => h("span", { class: "nbd-caveat" }, tag)));
    row.acts.hidden = this.stored;
    row.checkout.disabled = Boolean(this.blocked);
    row.checkout.title = this.blocked || "put this state into the model";
    row.drop.block(this.blocked);
  }
}

class Verdict {
  constructor(chart) {
    this.chart = chart;
    this.what = h("span", { class: "nbd-read" });
    this.word = h("span", { class: "nbd-pill nbd-verdict-word" });
    this.sentence = h("p", { class: "nbd-sentence" });
    this.caveat = h("p", { class: "nbd-calm" });
    this.head = h("tr");
    this.body = h("tbody");
    this.node = h("section", { class: "nbd-panel nbd-judge", "aria-label": "Verdict", hidden: true },
      h("header", {}, h("h3", {}, "Verdict"), this.what, this.word),
      h("div", { class: "nbd-pair-of-two" },
        h("div", { class: "nbd-said" }, this.sentence, h("div", { class: "nbd-scroll", tabindex: "0" }, h("table", {}, h("thead", {}, this.head), this.body)), this.caveat),
        chart.node));
    chart.off = true;
  }

  update(state) {
    this.node.hidden = !state;
    this.chart.dirty = true;
    if (!state) return;
    setText(this.what, `${state.title} · ${state.about}`);
    setText(this.word, `${SIGNS[state.verdict] ?? ""} ${state.verdict}`);
    this.word.dataset.verdict = state.verdict;
    setText(this.sentence, state.sentence);
    setText(this.caveat, state.caveat);
    this.head.replaceChildren(...state.heads.map((text, index) => h("th", { scope: "col" }, this.swatch(state.tones[index - 1]), text)));
    this.body.replaceChildren(...state.rows.map(({ cells, verdict }) => h("tr", { "data-verdict": verdict },
      ...cells.map((text, index) => h(index ? "td" : "th", index ? {} : { scope: "row" }, text)))));
  }
  swatch(tone) {
    if (!tone) return "";
    const node = h("i", { class: "nbd-swatch", "aria-hidden": "true" });
    node.style.background = `var(--nbd-${tone})`;
    return node;
  }
}
