// The layers: other activations, layers that stop learning, batch norms put in and taken out.

class LayersPart {
  constructor(command) {
    this.command = command;
    this.answers = { activation: new Answer(), freeze: new Answer(), norms: new Answer() };
    const select = (label, changed = () => {}) => h("select", { "aria-label": label, onchange: changed });
    const button = (label, text, act) => h("button", { type: "button", "aria-label": label, onclick: guarded(act) }, text);
    const box = (label, title) => h("input", { type: "checkbox", "aria-label": label, title });
    this.hold = box("Keep batch norms' statistics", "the running statistics of its batch norms stay as they are, too");
    this.fold = box("Fold the batch norm", "what it does in evaluation goes into the weights of the layer before it");
    const tick = (node, text) => h("label", { class: "nbd-switch nbd-tick", title: node.title }, node, text);
    const of = (node) => (node.value ? [node.value] : []);
    this.activation = select("Layers with an activation");
    this.kind = select("Kind of activation");
    this.swap = button("Swap the activation", "Swap", () => command("swap_activation", { kind: this.kind.value, layers: of(this.activation) }));
    this.layer = select("Layer to freeze", () => this.offer());
    this.freeze = button("Freeze the layer", "Freeze", () => command("freeze", { layers: of(this.layer), hold: this.hold.checked }));
    this.thaw = button("Unfreeze the layer", "Unfreeze", () => command("unfreeze", { layers: of(this.layer) }));
    this.frozen = h("small");
    this.place = select("Layer for a batch norm");
    this.insert = button("Insert a batch norm after the layer", "Insert after", () => command("insert_norms", { layers: of(this.place) }));
    this.remove = button("Remove the batch norm", "Remove", () => command("remove_norms", { layers: of(this.place), fold: this.fold.checked }));
    const form = (title, ...nodes) => h("div", { class: "nbd-form", role: "group", "aria-label": title }, h("div", { class: "nbd-label" }, title), ...nodes);
    const row = (look, ...nodes) => h("div", { class: `nbd-act-row ${look}` }, ...nodes);
    this.swapping = form("Activation", row("nbd-three", this.activation, this.kind, this.swap), this.answers.activation.node);
    this.read = h("span", { class: "nbd-read" });
    this.node = part("Layers", [this.read], this.swapping,
      form("Learning", row("nbd-one", this.layer, this.freeze, this.thaw), tick(this.hold, "freezing keeps batch norms' statistics, too"), this.frozen, this.answers.freeze.node),
      form("Batch norm", row("nbd-one", this.place, this.insert, this.remove), tick(this.fold, "removing folds it into the layer before"), this.answers.norms.node));
  }

  update(state) {
    const first = !this.state;
    const { names, activations, kinds, frozen, answers } = this.state = state, places = withParents(names), cold = new Set(frozen);
    const all = (text) => [["", text]];
    setText(this.read, names.length ? plural(names.length, "layer") : "");
    this.swapping.hidden = !kinds.length;
    setOptions(this.activation, [...all(`all ${count(activations.length)}`), ...activations.map(([name, kind]) => [name, `${name} · ${kind}`])]);
    setOptions(this.kind, kinds.map((kind) => [kind, spaced(kind)]));
    if (first) this.kind.value = kinds.find((kind) => kind.replaceAll("_", "") !== activations[0]?.[1].toLowerCase()) ?? "";
    this.swap.disabled = !activations.length;
    this.swap.title = activations.length ? "" : "this model has no layer with an activation that can be swapped";
    setOptions(this.layer, [...all("all layers"), ...[...new Set([...places, ...frozen])].map((name) => [name, cold.has(name) ? `${name} · frozen` : name])]);
    setText(this.frozen, frozen.length ? `frozen: ${frozen.slice(0, 4).join(", ")}${frozen.length > 4 ? ` and ${count(frozen.length - 4)} more` : ""}` : "");
    setOptions(this.place, [...all("wherever it suits"), ...names.map((name) => [name, name])]);
    for (const [name, answer] of Object.entries(this.answers)) answer.update(answers[name]);
    this.offer();
  }

  offer() {
    const frozen = this.state?.frozen.includes(this.layer.value);
    this.freeze.disabled = Boolean(frozen);
    this.freeze.title = frozen ? "frozen already" : "its weights stay as they are";
  }
}

// Layers and what they are in, each before its first layer: encoder, encoder.0, encoder.0.norm1 …
function withParents(names) {
  const found = new Set();
  for (const name of names) {
    const parts = name.split(".");
    for (let length = 1; length <= parts.length; length += 1) found.add(parts.slice(0, length).join("."));
  }
  return [...found];
}
