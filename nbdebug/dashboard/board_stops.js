// Breakpoints: the list at the left, and in the run bar where training stands within a step.

// --- the list, and the field in which a condition is typed

const PLACEHOLDER = "grad_norm > 5 * median(grad_norm, 100)";
const LONGEST_CONDITION = 1000;

class Breakpoints {
  constructor(command) {
    this.command = command;
    this.state = { items: [], answer: null, blocked: "" };
    this.asked = null; // the condition waiting for its answer, and the latest answer when it was asked
    this.closed = "";
    this.rows = new Map();
    this.field = h("input", { type: "text", class: "nbd-condition", placeholder: PLACEHOLDER, maxlength: LONGEST_CONDITION, spellcheck: "false", autocomplete: "off", "aria-label": "Break when",
      title: `A condition, such as ${PLACEHOLDER}; Enter adds it`, oninput: () => this.typing(), onkeydown: (event) => this.key(event) });
    this.refusal = h("pre", { class: "nbd-refusal", role: "status", tabindex: "0", hidden: true });
    this.list = h("ul", { class: "nbd-break-list", "aria-label": "Breakpoints" });
    const id = `nbd-${Math.random().toString(36).slice(2)}`;
    this.heading = h("button", { type: "button", class: "nbd-fold", "aria-expanded": "false", "aria-controls": id, onclick: () => { this.chosen = this.body.hidden; this.apply(); } }, "Breakpoints");
    this.amount = h("span", { class: "nbd-read" });
    this.body = h("fieldset", { class: "nbd-break-body", id, hidden: true }, h("label", { class: "nbd-when" }, h("span", {}, "break when …"), this.field), this.refusal, this.list);
    this.node = h("section", { class: "nbd-panel nbd-breaks", "aria-label": "Breakpoints" }, h("header", {}, h("h3", {}, this.heading), this.amount), this.body);
  }

  key(event) {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    const condition = this.field.value.trim();
    if (condition) this.add(condition);
  }

  add(condition) {
    this.asked = { condition, after: this.state.answer?.number ?? 0 };
    this.refuse("");
    this.command("add_breakpoint", { condition });
  }

  typing() {
    this.field.removeAttribute("aria-invalid");
    if (!this.field.value) this.refuse("");
  }

  // A line that another one points into is not wrapped.
  refuse(text) {
    const lines = text.split("\n"), points = (line) => /^\s*\^/.test(line ?? "");
    this.refusal.replaceChildren(...lines.map((line, at) => h("div", points(line) || points(lines[at + 1]) ? { class: "nbd-keep" } : {}, line || " ")));
    this.refusal.hidden = !text;
    if (!text) this.field.removeAttribute("aria-invalid");
  }

  update(state) {
    this.state = state;
    this.hear(state.answer);
    this.apply();
  }

  // An answer to what this view asked for: what was typed stays until it was taken.
  hear(answer) {
    if (!answer || !this.asked || answer.number <= this.asked.after || answer.condition !== this.asked.condition) return;
    this.asked = null;
    const typed = this.field.value.trim() === answer.condition;
    this.refuse(answer.ok ? "" : answer.text);
    if (answer.ok && typed) this.field.value = "";
    else if (typed) this.field.setAttribute("aria-invalid", "true");
    if (!answer.ok) this.chosen = true;
  }

  close(reason) { this.closed = reason; this.apply(); }

  // Folded while there is nothing in it, until the person says otherwise.
  apply() {
    const { items, blocked } = this.state, why = this.closed || blocked;
    const on = items.filter(({ enabled }) => enabled).length;
    this.node.hidden = Boolean(blocked);
    this.body.hidden = !(this.chosen ?? (items.length > 0 || this.field.value !== ""));
    this.body.disabled = Boolean(why);
    this.heading.setAttribute("aria-expanded", String(!this.body.hidden));
    setText(this.amount, !items.length ? "none" : on === items.length ? String(on) : `${on} of ${items.length} on`);
    const rows = new Map(items.map((item) => [item.number, this.rows.get(item.number) ?? this.row(item.number)]));
    this.rows = rows;
    for (const item of items) this.fill(rows.get(item.number), item);
    arrange(this.list, items.map(({ number }) => rows.get(number).node));
  }

  row(number) {
    const box = h("input", { type: "checkbox", onchange: () => { box.nbdTouched = Date.now(); this.command("edit_breakpoint", { number, enabled: box.checked }); setTimeout(() => this.apply(), IN_USE_MS + 50); } });
    const text = h("code"), about = h("small"), note = h("small", { class: "nbd-note" });
    const remove = h("button", { type: "button", class: "nbd-tool", onclick: guarded(() => this.command("remove_breakpoint", { number })) }, icon("M4 4l8 8M12 4l-8 8"));
    const node = h("li", {}, h("label", {}, box, text), remove, about, note);
    return { node, box, text, about, note, remove };
  }

  fill({ node, box, text, about, note, remove }, item) {
    if (!touchedLately(box)) box.checked = item.enabled;
    setText(text, item.text);
    text.title = item.text;
    setText(about, [item.when, item.hits].filter(Boolean).join(" · "));
    setText(note, item.note);
    note.hidden = !item.note;
    box.setAttribute("aria-label", `${item.text}, ${item.when}`);
    remove.setAttribute("aria-label", `Remove ${item.text}`);
    remove.title = "remove";
    node.classList.toggle("nbd-hit", item.lit);
    node.classList.toggle("nbd-idle", !item.enabled);
    if (item.lit) node.setAttribute("aria-current", "true");
    else node.removeAttribute("aria-current");
  }
}

// --- where training stands within a step, in the run bar

class StopLine {
  constructor(command) {
    const button = (text, label, name) => h("button", { type: "button", "aria-label": label, onclick: guarded(() => command(name)) }, text);
    this.text = h("span", { class: "nbd-stop-text", role: "status" });
    this.skip = button("Skip batch", "Skip the batch", "skip");
    this.onward = [button("▶ Resume", "Resume from the stop", "resume"), button("Step", "Step on from the stop", "step")];
    this.look = button("Look before the step", "Look before the step", "post_mortem");
    this.look.title = "put the model to before the step that raised the error, its batch at hand";
    this.buttons = h("fieldset", { class: "nbd-stop-buttons" }, this.look, this.onward[0], this.skip, this.onward[1]);
    this.node = h("div", { class: "nbd-stop", hidden: true }, this.text, this.buttons);
  }

  update(stop) {
    this.node.hidden = !stop;
    setText(this.text, stop?.text ?? "");
    if (!stop) return;
    this.text.title = stop.title;
    this.node.dataset.tone = stop.tone;
    this.buttons.disabled = Boolean(stop.blocked);
    this.buttons.title = stop.blocked;
    this.skip.title = stop.skip;
    this.look.hidden = !stop.failed;
    for (const button of this.onward) button.hidden = stop.failed;
  }

  close(reason) { if (reason) this.buttons.disabled = true; }
}
