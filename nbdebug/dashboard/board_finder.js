// The learning-rate finder: what to test, what came of it; a click on the curve sets the rate there.

class RateChart extends Chart {
  // `take` is called with the rate clicked at; `blocked` says why none can be set, if so.
  constructor(name, take, blocked) {
    super(name);
    this.take = take;
    this.blocked = blocked;
    this.here = h("div", { class: "nbd-rate-line", hidden: true }, h("span"));
    this.plot.after(this.here);
    this.plot.addEventListener("pointermove", (event) => this.move(event));
    this.plot.addEventListener("pointerleave", () => { this.here.hidden = true; });
    this.plot.addEventListener("pointerdown", (event) => this.press(event), true);
  }

  rateAt(event) {
    const layout = this.plot._fullLayout, axis = layout?.xaxis;
    if (!axis?.p2d || this.plot.style.visibility !== "visible" || !this.patch?.layout?.meta?.able || this.blocked()) return null;
    const { left, top } = this.plot.getBoundingClientRect(), x = event.clientX - left - axis._offset, y = event.clientY - top - layout.yaxis._offset;
    if (x < 0 || x > axis._length || y < 0 || y > layout.yaxis._length) return null;
    return { x, rate: Number(axis.p2d(x).toPrecision(2)) };
  }

  move(event) {
    const at = event.buttons ? null : this.rateAt(event);
    this.here.hidden = !at;
    if (!at) return;
    const { xaxis, yaxis } = this.plot._fullLayout, label = this.here.firstElementChild;
    setText(label, `use ${twoDigits(at.rate)}`);
    Object.assign(this.here.style, { left: `${xaxis._offset + at.x}px`, top: `${yaxis._offset}px`, height: `${yaxis._length}px` });
    label.classList.toggle("nbd-left-of", at.x > 0.7 * xaxis._length);
  }

  press(down) {
    if (down.button) return;
    this.here.hidden = true;
    globalThis.addEventListener("pointerup", (up) => {
      const at = Math.hypot(up.clientX - down.clientX, up.clientY - down.clientY) > CLICK_PIXELS ? null : this.rateAt(up);
      if (at) this.take(at.rate);
    }, { once: true });
  }
}

// As words.rate.
function twoDigits(value) {
  return value.toExponential(1).replace("e+", "e");
}

class Finder {
  constructor(command) {
    this.command = command;
    this.state = null;
    this.closed = "";
    this.chart = new RateChart("lr_curve", (rate) => this.use(rate), () => this.closed || this.state?.blocked);
    const field = (label, rest) => {
      const input = h("input", { type: "number", "aria-label": label, oninput: () => this.predict(), onkeydown: (event) => { if (event.key === "Enter") this.run(); }, ...rest });
      return { input, node: h("label", { class: "nbd-unit" }, h("span", {}, label), input) };
    };
    this.low = field("lowest rate", { step: "any", min: 1e-12, max: 1e6 });
    this.high = field("highest rate", { step: "any", min: 1e-12, max: 1e6 });
    this.steps = field("steps", { step: 1, min: 10, max: 10000 });
    this.button = h("button", { type: "button", class: "nbd-main", onclick: guarded(() => this.run()) }, "Run the range test");
    this.cost = h("p", { class: "nbd-calm" });
    this.form = h("fieldset", { class: "nbd-find-form" }, h("div", { class: "nbd-find-fields" }, this.low.node, this.high.node, this.steps.node), this.button);
    this.doing = h("span", { role: "status" });
    this.cancel = h("button", { type: "button", onclick: guarded(() => command("pause")) }, "End the test");
    this.progress = h("div", { class: "nbd-find-doing", hidden: true }, this.doing, this.cancel);
    this.refusal = h("p", { class: "nbd-refused", role: "status" });
    this.taken = h("p", { class: "nbd-calm" });
    this.note = h("p", { class: "nbd-find-note" });
    this.list = h("ul", { class: "nbd-find-list", "aria-label": "Suggested learning rates" });
    this.schedule = h("p", { class: "nbd-calm" });
    this.node = h("div", { class: "nbd-find" },
      h("div", { class: "nbd-find-side" }, this.form, this.cost, this.progress, this.refusal, this.taken, this.list, this.note, this.schedule), this.chart.node);
  }

  use(rate) { if (!this.closed && !this.state?.blocked) this.command("set_lr", { value: rate, group: "" }); }

  run() {
    if (!this.form.disabled && !this.wrong()) this.command("find_lr", { low: Number(this.low.input.value), high: Number(this.high.input.value), steps: Number(this.steps.input.value) });
  }

  // What is wrong with the fields, in words.
  wrong() {
    const [low, high, steps] = [this.low, this.high, this.steps].map(({ input }) => input.value === "" ? NaN : Number(input.value));
    const rate = (value) => value >= 1e-12 && value <= 1e6;
    const ok = { low: rate(low), high: rate(high) && !(low >= high), steps: Number.isInteger(steps) && steps >= 10 && steps <= 10000 };
    for (const [name, good] of Object.entries(ok)) this[name].input.setAttribute("aria-invalid", String(!good));
    if (!ok.low) return "the lowest rate has to be from 1e-12 to 1e6";
    if (!ok.high) return rate(high) ? "the highest rate has to be above the lowest" : "the highest rate has to be from 1e-12 to 1e6";
    return ok.steps ? "" : "give a whole number of steps, from 10 to 10,000";
  }

  update(state) {
    if (!this.state) for (const name of ["low", "high", "steps"]) this[name].input.value = String(state.usual[name]);
    this.state = state;
    this.apply();
  }

  close(closed) { this.closed = closed; if (this.state) this.apply(); }

  apply() {
    const { blocked, stored, doing, refusal, taken, note, suggestions, schedule } = this.state, why = this.closed || blocked;
    this.form.hidden = this.cost.hidden = stored;
    this.form.disabled = Boolean(why);
    this.form.title = why;
    this.progress.hidden = !doing || Boolean(this.closed);
    setText(this.doing, doing);
    for (const [node, text] of [[this.refusal, doing ? "" : refusal], [this.taken, taken], [this.note, note], [this.schedule, schedule]]) { setText(node, text); node.hidden = !text; }
    this.predict();
    const key = JSON.stringify([suggestions, why, stored]);
    if (this.shown === key) return;
    this.shown = key;
    const focused = [...this.list.children].findIndex((node) => node.contains(this.list.getRootNode().activeElement));
    this.list.replaceChildren(...suggestions.map((each, index) => this.row(each, index, why || (stored ? "a journal from disk" : ""))));
    if (focused >= 0) this.list.children[focused]?.querySelector("button")?.focus();
  }

  row({ name, rate, text, on }, index, why) {
    const label = on ? `${text} is set` : `use ${text}`;
    const button = h("button", { type: "button", "aria-label": `${label}, ${name}`, "aria-pressed": String(on), title: why || "the learning rate from the next step on", onclick: guarded(() => this.use(rate)) }, label);
    button.disabled = Boolean(why);
    return h("li", { class: index ? "" : "nbd-first" }, button, h("span", {}, name));
  }

  predict() {
    if (!this.state) return;
    const wrong = this.wrong(), steps = Number(this.steps.input.value), each = this.state.step_s;
    setText(this.cost, wrong || `${plural(steps, "step")} on your data${each ? `, ${about(steps * each)}` : ""}; then everything is as it was`);
    this.cost.classList.toggle("nbd-refused", Boolean(wrong));
    this.button.disabled = Boolean(wrong);
  }
}
