// The optimizer: its options, for all parameter groups or one, and the swap to another kind.

class OptimizerPart {
  constructor(command) {
    this.command = command;
    this.rows = new Map();
    this.name = h("span", { class: "nbd-read" });
    this.group = h("select", { "aria-label": "Options of the parameter group", onchange: () => this.choseGroup() });
    this.list = h("div", { class: "nbd-options" });
    this.fixedList = h("div", { class: "nbd-options" });
    this.amount = h("summary");
    this.fixed = h("details", { class: "nbd-fixed" }, this.amount, this.fixedList);
    this.kind = h("select", { "aria-label": "Kind of optimizer" });
    this.rate = new NumberField("Learning rate after the swap", { changed: () => this.judge(), enter: () => this.swapIt(), optional: true, placeholder: "lr as fits" });
    this.rate.range = { low: 0, high: LARGEST_RATE, low_open: false, high_open: false, whole: false };
    this.rate.input.title = "the learning rate after the swap; left empty, updates stay about as large as they are";
    this.swap = h("button", { type: "button", "aria-label": "Swap the optimizer", onclick: guarded(() => this.swapIt()) }, "Swap");
    this.swapNote = h("small");
    this.split = h("button", { type: "button", class: "nbd-split", title: "they get parameter groups of their own, without weight decay", onclick: guarded(() => command("split_decay")) }, "No decay on norms and biases");
    this.answer = new Answer();
    this.node = part("Optimizer", [this.name], this.group, this.list, this.fixed,
      h("div", { class: "nbd-form" }, h("div", { class: "nbd-act-row nbd-three" }, this.kind, this.rate.input, this.swap), this.swapNote, this.split), this.answer.node);
  }

  swapIt() {
    this.judge();
    if (!this.rate.wrong && !this.swap.matches(":disabled")) this.command("swap_optimizer", { kind: this.kind.value, ...(this.rate.empty ? {} : { lr: this.rate.value }) });
  }

  judge() {
    this.swap.disabled = Boolean(this.rate.wrong);
    setText(this.swapNote, this.rate.wrong ? `the rate has to be ${this.rate.wrong}` : "");
  }

  choseGroup() {
    for (const { field, box } of this.rows.values()) (field?.input ?? box).nbdTouched = 0;
    this.apply();
  }

  update(state, groups) {
    const first = !this.state;
    Object.assign(this, { state, groups });
    setOptions(this.kind, state.kinds.map((kind) => [kind, kind]));
    if (first) this.kind.value = state.kinds.find((kind) => kind !== state.name) ?? "";
    this.apply();
  }

  apply() {
    const { name, options, answer } = this.state;
    setText(this.name, name || "none");
    this.split.hidden = !options.some((option) => option.name === "weight_decay");
    setOptions(this.group, [["", "all groups"], ...this.groups.map((group) => [group, group])]);
    this.group.hidden = this.groups.length < 2 || !options.length;
    const rows = new Map(options.map((option) => [this.key(option), this.rows.get(this.key(option)) ?? this.row(option)]));
    this.rows = rows;
    for (const option of options) this.fill(rows.get(this.key(option)), option);
    const nodes = (away) => options.filter((option) => this.folded(option) === away).map((option) => rows.get(this.key(option)).node);
    arrange(this.list, nodes(false));
    arrange(this.fixedList, nodes(true));
    const amount = this.fixedList.children.length;
    this.fixed.hidden = !amount;
    setText(this.amount, `${plural(amount, "switch").replace("switchs", "switches")} that can't be changed now`);
    this.answer.update(answer);
  }

  key({ name, switch: on }) { return `${on ? "switch" : "number"} ${name}`; }

  // Switches that only say how an update is computed would be in the way.
  folded(option) { return option.switch && Boolean(option.fixed); }

  row(option) {
    const label = spaced(option.name), note = h("small"), row = { note };
    const ask = (value) => this.command("set_option", { name: option.name, value, group: this.group.value });
    if (option.switch) {
      row.box = h("input", { type: "checkbox", "aria-label": label, onchange: () => { row.box.nbdTouched = Date.now(); ask(row.box.checked); setTimeout(() => this.apply(), IN_USE_MS + 50); } });
    } else row.field = new NumberField(label, { ask, changed: () => this.say(row) });
    row.node = h("div", { class: "nbd-option" }, h("label", {}, h("span", {}, label), row.box ?? row.field.input), note);
    return row;
  }

  fill(row, option) {
    const group = this.group.value, own = group ? option.values.find(([name]) => name === group) : option.values[0];
    const input = row.box ?? row.field.input;
    input.disabled = Boolean(option.fixed) || !own;
    row.node.title = option.fixed ? `${spaced(option.name)} ${option.fixed}` : option.title;
    row.quiet = option.fixed || (own ? !group && option.differ ? `in force ${option.in_force}` : "" : "not in this group");
    if (row.box && own && !touchedLately(row.box)) {
      row.box.checked = Boolean(own[1]);
      row.box.indeterminate = !group && option.differ;
    } else if (row.field) {
      row.field.range = option;
      if (own && own[1] !== null) row.field.put(own[1]);
    }
    this.say(row);
  }

  say({ note, field, quiet }) { setText(note, field?.wrong ? `has to be ${field.wrong}` : quiet ?? ""); note.classList.toggle("nbd-refused", Boolean(field?.wrong)); }
}
