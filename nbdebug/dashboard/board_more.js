// Batches, loss and gradients: knobs that are one number each, clipping by layer; and averages of the weights.

class MorePart {
  constructor(command) {
    this.command = command;
    this.rows = new Map();
    this.list = h("div", { class: "nbd-options" });
    this.answer = new Answer();
    this.layer = h("select", { "aria-label": "Layer to clip", onchange: () => this.judge() });
    this.mode = h("select", { "aria-label": "Clipping of the layer", onchange: () => this.judge() }, ...["norm", "value", "off"].map((mode) => h("option", { value: mode }, mode)));
    this.threshold = new NumberField("Clip threshold of the layer", { changed: () => this.judge(), enter: () => this.clip() });
    this.threshold.range = { low: 0, high: null, low_open: true, high_open: false, whole: false };
    this.threshold.input.value = "1";
    this.button = h("button", { type: "button", "aria-label": "Clip the layer", onclick: guarded(() => this.clip()) }, "Set");
    this.clips = h("small");
    this.node = part("Batches and gradients", [], this.list,
      h("div", { class: "nbd-form", role: "group", "aria-label": "Clipping of a layer" }, h("div", { class: "nbd-label" }, "Clipping of a layer"),
        h("div", { class: "nbd-act-row nbd-clip-row" }, this.layer, this.mode, this.threshold.input, this.button), this.clips), this.answer.node);
  }

  update({ numbers, clips, answer }, layers) {
    const key = ({ name, part: of }) => `${name} ${of}`;
    const rows = new Map(numbers.map((knob) => [key(knob), this.rows.get(key(knob)) ?? this.row(knob)]));
    this.rows = rows;
    for (const knob of numbers) this.fill(rows.get(key(knob)), knob);
    arrange(this.list, numbers.map((knob) => rows.get(key(knob)).node));
    setOptions(this.layer, layers.map((name) => [name, name]));
    setText(this.clips, clips.length ? clips.map(([name, text]) => `${name} ${text}`).join(", ") : "no layer has a rule of its own");
    this.answer.update(answer);
    this.judge();
  }

  row({ name, part: of, label }) {
    const row = { note: h("small") };
    row.field = new NumberField(label, { ask: (value) => this.command("set_more", { name, value, part: of }), changed: () => this.say(row) });
    row.node = h("div", { class: "nbd-option" }, h("label", {}, h("span", {}, label), row.field.input), row.note);
    return row;
  }

  fill(row, knob) {
    row.field.range = knob;
    row.field.input.disabled = Boolean(knob.fixed);
    row.field.input.placeholder = knob.value === null ? "–" : "";
    row.node.title = knob.fixed || knob.title;
    row.quiet = knob.fixed || knob.note;
    if (knob.value !== null) row.field.put(knob.value);
    this.say(row);
  }

  say({ note, field, quiet }) { setText(note, field.wrong ? `has to be ${field.wrong}` : quiet); note.classList.toggle("nbd-refused", Boolean(field.wrong)); }

  judge() {
    const off = this.mode.value === "off", wrong = off ? "" : outOfRange(this.threshold.range, this.threshold.value);
    this.threshold.input.disabled = off;
    this.threshold.input.setAttribute("aria-invalid", String(Boolean(wrong)));
    this.button.disabled = !this.layer.options.length || Boolean(wrong);
    this.button.title = wrong ? `the threshold has to be ${wrong}` : this.layer.options.length ? "" : "no layer is known yet";
  }

  clip() {
    this.judge();
    if (!this.button.matches(":disabled")) this.command("set_layer_clip", { layer: this.layer.value, mode: this.mode.value, threshold: this.mode.value === "off" ? 1 : this.threshold.value });
  }
}

class AveragePart {
  constructor(command) {
    this.command = command;
    this.kind = h("select", { "aria-label": "Kind of average", onchange: () => this.offer() }, h("option", { value: "ema" }, "EMA (exponential)"), h("option", { value: "swa" }, "SWA (equal)"));
    this.decay = new NumberField("Decay of the average", { changed: () => this.offer(), enter: () => this.take() });
    this.decay.range = { low: 0, high: 1, low_open: false, high_open: true, whole: false };
    this.decay.input.value = "0.999";
    this.decay.input.title = "what an average keeps of itself at each step";
    this.start = h("button", { type: "button", "aria-label": "Take an average of the weights", onclick: guarded(() => this.take()) }, "Take");
    this.stop = h("button", { type: "button", "aria-label": "End the average of the weights", onclick: guarded(() => command("average", { kind: "", decay: 0.999 })) }, "End");
    this.note = h("small");
    this.answer = new Answer();
    this.node = h("div", { class: "nbd-form", role: "group", "aria-label": "Average of the weights" }, h("div", { class: "nbd-label" }, "Average of the weights"),
      h("div", { class: "nbd-act-row nbd-average" }, this.kind, this.decay.input, this.start, this.stop), this.note, this.answer.node);
  }

  update(state, answer) {
    this.state = state;
    this.answer.update(answer);
    this.offer();
  }

  offer() {
    const wrong = this.kind.value === "ema" ? outOfRange(this.decay.range, this.decay.value) : "", on = this.state?.kind;
    this.decay.input.disabled = this.kind.value !== "ema";
    this.decay.input.setAttribute("aria-invalid", String(Boolean(wrong)));
    this.start.disabled = Boolean(wrong);
    this.start.title = wrong || (on ? "in the place of the one that is taken, from here on" : "on the side: training is untouched, validations judge it too");
    this.stop.disabled = !on;
    setText(this.note, wrong ? `decay has to be ${wrong}` : this.state?.text ?? "");
    this.note.classList.toggle("nbd-refused", Boolean(wrong));
  }

  take() {
    this.offer();
    if (!this.start.matches(":disabled")) this.command("average", { kind: this.kind.value, decay: this.kind.value === "ema" ? this.decay.value : 0.999 });
  }
}
