// The run bar: buttons, the rewind slider, pills, and what holds the session besides training.

// --- the rewind slider: moving it asks for nothing; letting go of the mouse does, or Enter. In use it is the person's.

const MOST_MARKS = 60;

class Rewind {
  constructor(command, pointAt) {
    this.command = command;
    this.pointAt = pointAt;
    this.state = { last: 0, at: 0, step_s: 0, restore_s: 0, blocked: "" };
    this.stops = [];
    this.moving = this.keyed = false;
    this.closed = "";
    this.slider = h("input", {
      type: "range", min: 0, max: 0, step: 1, value: 0, disabled: true, class: "nbd-rewind", "aria-label": "Rewind to step",
      oninput: () => this.move(), onchange: () => { if (!this.keyed) this.ask(); }, onkeydown: (event) => this.key(event),
      onpointerdown: () => this.press(), onblur: () => this.leave(),
    });
    this.ticks = icon("");
    this.ticks.setAttribute("class", "nbd-stops");
    this.ticks.setAttribute("preserveAspectRatio", "none");
    this.bubble = h("div", { class: "nbd-bubble", hidden: true });
    this.node = h("div", { class: "nbd-slider" }, this.ticks, this.slider, this.bubble);
  }

  update(state) { this.state = state; this.apply(); }

  mark(stops) {
    this.stops = stops;
    this.stretch = 0;
    this.apply();
  }

  // So many marks that they can be told apart: the first in each stretch of a power of two steps, so that none jumps.
  drawStops(last) {
    const stretch = this.stops.length > MOST_MARKS ? 2 ** Math.ceil(Math.log2(last / MOST_MARKS)) : 1;
    if (stretch === this.stretch) return;
    this.stretch = stretch;
    const shown = new Map([...this.stops].reverse().map((step) => [Math.floor(step / stretch), step]));
    this.ticks.firstElementChild.setAttribute("d", [...shown.values()].map((step) => `M${step} 0v1`).join(""));
  }

  close(reason) { this.closed = reason; this.apply(); }

  apply() {
    const { last, at, blocked } = this.state;
    this.slider.disabled = Boolean(blocked || this.closed);
    this.node.title = this.closed || blocked;
    if (this.slider.disabled) this.end();
    if (this.moving || (touchedLately(this.slider) && !blocked)) return;
    this.drawStops(Math.max(1, last));
    this.ticks.setAttribute("viewBox", `0 0 ${Math.max(1, last)} 1`);
    this.slider.max = String(Math.max(1, last));
    this.slider.value = String(at);
    this.slider.setAttribute("aria-valuetext", `step ${count(at)} of ${count(last)}`);
    fill(this.slider);
  }

  press() {
    this.keyed = false;
    globalThis.addEventListener("pointerup", () => setTimeout(() => { if (!this.keyed) this.end(); }, 0), { once: true });
  }

  key(event) {
    if (event.key === "Enter") { if (this.moving) this.ask(); }
    else if (event.key === "Escape") this.leave();
    else if (event.key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(event.key)) {
      this.keyed = true;
      if (event.shiftKey && event.key.startsWith("Arrow")) this.hop(event);
    }
  }

  // From snapshot to snapshot: nothing to replay there.
  hop(event) {
    event.preventDefault();
    const at = Number(this.slider.value), back = ["ArrowLeft", "ArrowDown"].includes(event.key);
    const stop = back ? this.stops.findLast((each) => each < at) : this.stops.find((each) => each > at);
    if (stop === undefined) return;
    this.slider.value = String(stop);
    this.move();
  }

  move() {
    const step = Number(this.slider.value), words = this.words(step);
    this.moving = true;
    fill(this.slider);
    this.slider.setAttribute("aria-valuetext", words);
    setText(this.bubble, this.keyed ? `${words} · Enter goes there` : words);
    this.bubble.hidden = false;
    const room = this.node.clientWidth, wide = this.bubble.offsetWidth, root = this.node.closest(".nbd").getBoundingClientRect();
    const left = this.node.getBoundingClientRect().left - root.left;
    const middle = 7 + (room - 14) * (step / Number(this.slider.max)) - wide / 2;
    this.bubble.style.left = `${Math.min(root.width - left - wide - 4, Math.max(4 - left, middle))}px`;
    this.pointAt(step);
  }

  words(step) {
    const from = this.stops.findLast((each) => each <= step), parts = [`step ${count(step)}`];
    if (step === this.state.at) parts.push("where the model is");
    else if (from !== undefined) {
      const seconds = (step - from) * this.state.step_s + this.state.restore_s;
      parts.push(step === from ? "a snapshot" : `${plural(step - from, "step")} to replay`);
      if (this.state.step_s || this.state.restore_s) parts.push(seconds < 0.95 ? `about ${Math.max(0.1, seconds).toFixed(1)} s` : about(seconds));
    }
    return parts.join(" · ");
  }

  ask() {
    const step = Number(this.slider.value);
    if (this.moving && step !== this.state.at) {
      this.slider.nbdTouched = Date.now();
      setTimeout(() => this.apply(), IN_USE_MS + 50);
      this.command("rewind", { step });
    }
    this.end();
  }

  leave() {
    if (!this.moving) return;
    const held = !this.keyed;
    this.end();
    if (held) this.slider.disabled = true; // lets go of the mouse
    setTimeout(() => this.apply(), 0);
  }

  end() {
    this.moving = this.keyed = false;
    this.bubble.hidden = true;
    this.pointAt(null);
  }
}

class RunBar {
  constructor(command, pointAt) {
    const button = (text, icon, name) => h("button", { type: "button", disabled: true, onclick: guarded(() => command(name)) }, h("span", { "aria-hidden": "true" }, icon), text);
    this.icon = h("span", { "aria-hidden": "true" }, "▶ ");
    this.label = h("span", {}, "Run");
    this.toggle = h("button", { type: "button", class: "nbd-main", disabled: true, onclick: guarded(() => command(this.label.textContent.toLowerCase())) }, this.icon, this.label);
    this.step = h("button", { type: "button", disabled: true, onclick: () => command("step") }, h("span", { "aria-hidden": "true" }, "⇥ "), "Step");
    this.epoch = button("+1 epoch", "", "epoch");
    this.stop = button("Stop", "■ ", "stop");
    this.rewind = new Rewind(command, pointAt);
    this.fill = h("div", { class: "nbd-fill" });
    this.progress = h("div", { class: "nbd-progress", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100 }, this.fill);
    this.word = h("span", { class: "nbd-pill nbd-state", role: "status" });
    this.pills = h("span", { class: "nbd-pills" });
    this.watching = new Watching();
    this.model = h("span", { class: "nbd-pill", title: "the run that the model's weights belong to" }, this.dot = h("i", { class: "nbd-swatch", "aria-hidden": "true" }), "in the model: ", this.modelName = h("b"));
    this.doing = h("span", { class: "nbd-doing", role: "status" });
    this.share = h("div", { class: "nbd-share" }, h("div", { class: "nbd-fill" }));
    this.cancel = h("button", { type: "button", onclick: guarded(() => command(this.cancel.dataset.command)) }, "Cancel");
    this.activity = h("div", { class: "nbd-activity", hidden: true }, this.doing, this.share, this.cancel);
    this.notice = h("div", { class: "nbd-message nbd-notice", role: "status" });
    this.message = h("div", { class: "nbd-message", role: "status" });
    this.stopped = new StopLine(command);
    this.node = h("section", { class: "nbd-bar", "aria-label": "Run" },
      this.fields = h("fieldset", { class: "nbd-buttons" }, this.toggle, this.step, this.epoch, this.stop),
      this.time = h("div", { class: "nbd-time" }, this.rewind.node, this.progress),
      h("div", { class: "nbd-pills" }, this.word, this.pills, this.watching.node, this.model),
      this.strip = h("div", { class: "nbd-strip" }, this.activity, this.stopped.node, this.notice, this.message, this.quiet = h("div", { class: "nbd-quiet" })));
  }

  update({ buttons, progress, pills, state, message, notice, activity, model, colour, stored, stop }) {
    setText(this.label, buttons.toggle.label);
    setText(this.icon, buttons.toggle.label === "Pause" ? "❚❚ " : "▶ ");
    this.toggle.disabled = !buttons.toggle.enabled;
    for (const name of ["step", "epoch", "stop"]) this[name].disabled = !buttons[name];
    for (const node of [this.fields, this.toggle]) node.title = buttons.blocked;
    this.fields.hidden = this.time.hidden = stored;
    this.applyProgress(progress);
    setText(this.word, state);
    this.word.dataset.state = state;
    this.pills.replaceChildren(...pills.map(([before, value, after]) =>
      h("span", { class: "nbd-pill" }, before ? `${before} ` : "", h("b", {}, value), after)));
    this.model.hidden = !model;
    setText(this.modelName, model);
    this.dot.style.background = `var(--nbd-${colour})`;
    setText(this.notice, notice);
    setText(this.message, message);
    this.message.dataset.state = state;
    this.applyActivity(activity);
    this.stopped.update(stop);
    setText(this.quiet, progress.text); // so that the line is there already when something comes to be said in it
    this.quiet.hidden = Boolean(activity || notice || message || stop);
    this.strip.hidden = stored && !this.quiet.hidden;
  }

  // Below the slider: how far it is to the goal, with a gap after each epoch.
  applyProgress({ share, ticks, text }) {
    this.fill.style.width = `${100 * share}%`;
    this.progress.style.setProperty("--nbd-part", ticks > 1 ? `${100 / ticks}%` : "100%");
    this.progress.setAttribute("aria-valuenow", String(Math.round(100 * share)));
    this.progress.setAttribute("aria-valuetext", text);
    this.progress.title = text;
  }

  applyActivity(activity) {
    this.activity.hidden = !activity;
    if (!activity) return;
    setText(this.doing, activity.text);
    this.share.hidden = activity.share === null;
    this.share.firstElementChild.style.width = `${100 * (activity.share ?? 0)}%`;
    this.cancel.dataset.command = activity.cancel;
  }

  close(reason) {
    this.fields.disabled = this.cancel.disabled = Boolean(reason);
    this.rewind.close(reason);
    this.stopped.close(reason);
    if (!reason) return;
    setText(this.word, "closed");
    this.word.dataset.state = "closed";
    setText(this.message, reason);
    this.quiet.hidden = true;
    this.strip.hidden = false;
  }
}
