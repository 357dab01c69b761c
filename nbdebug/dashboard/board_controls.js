// --- the controls at the left

const LARGEST_RATE = 1e6;
const RATE_ASKED = "a rate is a number from 0 to 1e6";
const MOST_EPOCHS = 1e6;
const EPOCHS_ASKED = "epochs are a whole number, 1 or more";

class Controls {
  constructor(command) {
    this.command = command;
    this.state = null;
    this.closed = "";
    this.turnedBack = null;
    this.startByItself = false;
    this.sendRate = throttle((value, group) => command("set_lr", { value, group }));
    this.sendClip = throttle((mode, threshold) => command("set_clip", { mode, threshold }));
    this.sendDropout = throttle((value, layer) => command("set_dropout", { value, layer }));
    this.node = this.build();
    this.node.addEventListener("focusout", () => setTimeout(() => this.apply(), 0));
  }

  build() {
    const lr = this.lr = h("input", { type: "range", min: 0, max: 800, step: 1, "aria-label": "Learning rate", oninput: () => this.dragRate() });
    this.lrText = h("input", { type: "text", class: "nbd-number", inputmode: "decimal", "aria-label": "Type a rate", oninput: () => { this.typed = null; },
      onchange: () => { if (this.lrText.value !== this.typed) this.typeRate(); }, onkeydown: (event) => { if (event.key === "Enter") this.typeRate(); } });
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
    this.start = h("select", { "aria-label": "Rerun from", onchange: () => { this.startByItself = false; } });
    this.cost = h("span", { class: "nbd-mute" });
    this.rerun = h("button", { type: "button", "aria-label": "Rerun", onclick: guarded(() => this.command("rerun", { epochs: Number(this.epochs.value), start: this.start.value })) }, "Rerun ▸ ", this.cost);
    this.rerunNote = h("small");
    this.undo = h("button", { type: "button", class: "nbd-undo", "aria-label": "Undo", onclick: guarded(() => this.command("undo")) }, "undo ↶");
    this.outcome = h("p", { class: "nbd-outcome", "aria-live": "polite", tabindex: "0" });
    this.foretell = h("button", { type: "button", title: "two steps on the side, on the next batch; everything is as it was afterwards", onclick: guarded(() => this.command("foretell")) }, "Forecast");
    this.foretold = h("div", { role: "status" });
    this.next = h("div", { class: "nbd-next", hidden: true }, h("div", { class: "nbd-label" }, h("span", {}, "Next step"), this.foretell), this.foretold);
    const row = (label, ...rest) => h("div", { class: "nbd-row" }, h("div", { class: "nbd-label" }, ...label), ...rest);
    const pair = (...nodes) => h("div", { class: "nbd-pair" }, ...nodes);
    return h("section", { class: "nbd-panel nbd-controls", "aria-label": "Controls" },
      h("header", {}, h("h3", {}, "Controls"), this.optimizer = h("span", { class: "nbd-read" }), this.undo),
      this.fields = h("fieldset", { class: "nbd-rows" }, row([h("span", {}, "Learning rate"), this.lrText], lr, this.group, this.lrNote),
      row([h("span", {}, "Clipping")], pair(this.clip, this.threshold), this.clipNote),
      row([h("span", {}, "Dropout"), this.dropoutText], this.dropout, this.layer, this.dropoutNote),
      row([h("span", {}, "Init"), h("label", { class: "nbd-unit" }, h("span", { "aria-hidden": "true" }, "seed"), this.seed)], this.scheme, this.init, this.initNote),
      row([h("span", {}, "Rerun"), h("label", { class: "nbd-unit" }, this.epochs, h("span", { "aria-hidden": "true" }, "epochs"))], this.start, this.rerun, this.rerunNote)),
      this.next, this.outcome);
  }

  // A control the person is using is theirs: focused, or asked for a moment ago.
  inUse(node) {
    return node.getRootNode().activeElement === node || touchedLately(node);
  }

  touch(...nodes) {
    for (const node of nodes) node.nbdTouched = Date.now();
    setTimeout(() => this.apply(), IN_USE_MS + 50);
  }

  put(node, value) {
    if (this.inUse(node)) return;
    node.removeAttribute("aria-invalid");
    if (node.value !== String(value)) node.value = String(value);
  }

  chose(...nodes) {
    for (const node of nodes) node.nbdTouched = 0;
    this.apply();
  }

  dragRate() {
    const value = Number((10 ** (Number(this.lr.value) / 100 - 7)).toPrecision(3));
    this.touch(this.lr, this.lrText);
    this.lrText.removeAttribute("aria-invalid");
    this.lrText.value = rate(value);
    this.lr.setAttribute("aria-valuetext", rate(value));
    this.sendRate(value, this.group.value);
  }

  // By Enter, which JupyterLab keeps from making a change; leaving the field after that asks for nothing again.
  typeRate() {
    this.typed = this.lrText.value;
    const value = Number(this.lrText.value.trim().replace(",", "."));
    const good = value >= 0 && value <= LARGEST_RATE && this.lrText.value.trim() !== "";
    this.lrText.setAttribute("aria-invalid", String(!good));
    this.touch(this.lr, this.lrText);
    if (!good) { setText(this.lrNote, RATE_ASKED); return; }
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
    const epochs = Number(this.epochs.value), good = Number.isInteger(epochs) && epochs >= 1 && epochs <= MOST_EPOCHS;
    const { epoch_s: seconds, enabled, note } = this.state?.rerun ?? {};
    this.epochs.setAttribute("aria-invalid", String(!good));
    this.rerun.disabled = !(good && enabled);
    setText(this.rerunNote, good ? note ?? "" : EPOCHS_ASKED);
    setText(this.cost, good && seconds ? about(seconds * epochs) : "");
  }

  update(state) { this.state = state; this.apply(); }

  report(outcome) { this.outcomeShown = outcome; this.applyOutcome(); }

  applyOutcome() {
    const outcome = this.outcomeShown, why = this.closed || this.state?.blocked;
    setText(this.outcome, why || (outcome ? `${outcome.ok ? "✓" : "✕"} ${outcome.text}` : ""));
    this.outcome.classList.toggle("nbd-refused", Boolean(!why && outcome && !outcome.ok));
    this.outcome.title = outcome && !why ? outcome.where : "";
    this.fields.disabled = Boolean(why);
    this.fields.title = why || "";
    this.undo.disabled = Boolean(why) || !this.state?.undo.able;
    this.undo.title = why || this.state?.undo.title || "";
  }

  // What the next step would be; hidden while training runs.
  applyNext({ shown, lines, refusal }) {
    const why = this.closed || this.state.blocked, texts = refusal ? [refusal] : lines;
    this.next.hidden = !shown;
    this.foretell.disabled = Boolean(why);
    this.foretold.classList.toggle("nbd-refused", Boolean(refusal));
    const key = JSON.stringify(texts);
    if (this.foretold.dataset.lines === key) return;
    this.foretold.dataset.lines = key;
    this.foretold.replaceChildren(...texts.map((text) => h("small", {}, text)));
  }

  close(reason) { this.closed = reason; this.applyOutcome(); if (this.state) this.applyNext(this.state.next); }

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
    setText(this.initNote, state.init.note);
    this.applyStart(state.rerun);
    this.predict();
    this.applyNext(state.next);
    this.applyOutcome();
  }

  // Who went back to a step most likely means to go on from there; what they choose after that is theirs.
  applyStart({ starts, turned_back: step }) {
    setOptions(this.start, starts);
    if (step === this.turnedBack) return;
    if (step !== null) this.start.value = "here";
    else if (this.startByItself) this.start.value = starts[0][0];
    this.startByItself = step !== null;
    this.turnedBack = step;
  }

  applyRate({ groups, optimizer, note }) {
    setText(this.optimizer, optimizer);
    setOptions(this.group, [["", "all groups"], ...groups.map(({ name }) => [name, name])]);
    this.group.hidden = groups.length < 2;
    const group = groups.find(({ name }) => name === this.group.value) ?? groups[0];
    for (const node of [this.lr, this.lrText]) node.disabled = !group;
    if (group && group.asked !== null) {
      this.put(this.lr, position(group.asked));
      this.put(this.lrText, rate(group.asked));
      if (!this.inUse(this.lr)) this.lr.setAttribute("aria-valuetext", rate(group.asked));
    }
    const wrong = this.lrText.getAttribute("aria-invalid") === "true";
    setText(this.lrNote, wrong ? RATE_ASKED : group && this.group.value ? group.note : note);
    if (!group) return;
    fill(this.lr);
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
