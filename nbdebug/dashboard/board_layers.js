// What is looked at: the picked layer, the place in the module tree, kinds and quantities; tabs; what watching costs.

const OWN_MS = 1200;

// --- the choice: the person's word counts at once, and the kernel's again after a moment

class Choice {
  constructor(send, changed, alone) {
    this.send = send;
    this.changed = changed;
    this.alone = alone; // whether no kernel listens: then only the person's word counts
    this.state = { layer: "", told: "", histogram: "", histograms: [], quantity: "", quantities: [] };
    this.scope = { crumbs: [], path: [], grouped: false, rows: [], of: [] };
    this.names = [];
    this.own = null;
    this.ownAt = 0;
  }

  layer() { return this.own ?? this.state.layer; }

  told() { return this.layer() || this.state.told; }

  // The key of the row in which the picked layer is, "" for none.
  row() {
    const place = this.scope.of[this.names.indexOf(this.layer())];
    return place >= 0 ? this.scope.rows[place][0] : "";
  }

  // A layer is picked, and picked again let go of; a group is gone into.
  pick(key) {
    const row = this.scope.rows.find(([name]) => name === key);
    if (row?.[2]) this.go([...this.scope.path, key]);
    else this.pickLayer(key === this.layer() ? "" : key);
  }

  pickLayer(layer) {
    this.own = layer;
    this.ownAt = Date.now();
    setTimeout(() => this.settle(), OWN_MS + 50);
    this.send({ layer });
    this.changed();
  }

  go(path) { this.send({ path }); }

  up() { if (this.scope.path.length) this.go(this.scope.path.slice(0, -1)); }

  update(state) {
    const before = this.layer();
    this.state = state;
    this.settle(before);
  }

  settle(before = this.layer()) {
    if (Date.now() - this.ownAt > OWN_MS && !this.alone()) this.own = null;
    if (this.layer() !== before) this.changed();
  }
}

// --- a choice of few words in a panel's header

class Pick {
  constructor(label, choose, look = "") {
    this.node = h("select", { class: `nbd-pick ${look}`, "aria-label": label, onchange: () => { this.node.nbdTouched = Date.now(); choose(this.node.value); } });
  }

  update(options, value) {
    this.node.hidden = options.length < 2;
    setOptions(this.node, options);
    if (!touchedLately(this.node)) this.node.value = value;
  }

  close(closed) { this.node.disabled = closed; }
}

// --- the place in the module tree, of models with many layers, and the layer picked

class Place {
  constructor(choice) {
    this.choice = choice;
    this.crumbs = h("ol", { class: "nbd-crumbs" });
    this.rows = h("select", { class: "nbd-pick", "aria-label": "Go into", onchange: () => { const key = this.rows.value; this.rows.value = ""; if (key) choice.pick(key); } });
    this.amount = h("span", { class: "nbd-read" });
    this.picked = h("button", { type: "button", class: "nbd-chip", onclick: () => choice.pickLayer("") });
    this.node = h("nav", { class: "nbd-place", "aria-label": "Place in the model", hidden: true }, this.crumbs, this.rows, this.amount, this.picked);
  }

  update(closed) {
    const { crumbs, path, grouped, rows } = this.choice.scope, layer = this.choice.layer();
    this.node.hidden = !grouped;
    if (!grouped) return;
    const key = JSON.stringify([path, rows, closed]);
    if (this.shown !== key) {
      this.shown = key;
      const names = ["all layers", ...crumbs];
      this.crumbs.replaceChildren(...names.map((text, depth) => h("li", {}, depth === names.length - 1
        ? h("b", { "aria-current": "location" }, text)
        : h("button", { type: "button", class: "nbd-plain", disabled: Boolean(closed), onclick: () => this.choice.go(path.slice(0, depth)) }, text))));
      const groups = rows.filter(([, , size]) => size);
      this.rows.hidden = !groups.length;
      setOptions(this.rows, [["", "go into …"], ...groups.map(([name, label, size]) => [name, `${label} ▸ ${size} layers`])]);
      const total = rows.reduce((sum, [, , size]) => sum + (size || 1), 0);
      setText(this.amount, groups.length ? `${plural(total, "layer")} in ${plural(rows.length, "row")}` : plural(total, "layer"));
    }
    this.rows.disabled = this.picked.disabled = Boolean(closed);
    this.picked.hidden = !layer;
    setText(this.picked, `${layer} ×`);
    this.picked.setAttribute("aria-label", `Let go of ${layer}`);
  }
}

// --- tabs, as the ARIA practices have them: arrows move along, what is moved to opens

class Tabs {
  constructor(label, tabs, opened) {
    this.opened = opened;
    this.tabs = tabs.map(({ name, title, panel }) => ({ name, panel, button: h("button", { type: "button", role: "tab", class: "nbd-tab", onclick: () => this.open(name), onkeydown: (event) => this.key(event) }, title) }));
    const id = `nbd-${Math.random().toString(36).slice(2)}`;
    for (const { name, panel, button } of this.tabs) {
      button.id = `${id}-${name}-tab`;
      panel.id = `${id}-${name}`;
      button.setAttribute("aria-controls", panel.id);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", button.id);
    }
    this.node = h("section", { class: "nbd-panel nbd-lower", "aria-label": label }, h("div", { class: "nbd-tablist", role: "tablist", "aria-label": label }, ...this.tabs.map(({ button }) => button)), ...tabs.map(({ panel }) => panel));
    this.show(tabs[0].name);
  }

  show(name) {
    this.name = name;
    for (const { name: each, panel, button } of this.tabs) {
      panel.hidden = each !== name;
      button.setAttribute("aria-selected", String(each === name));
      button.tabIndex = each === name ? 0 : -1;
    }
  }

  open(name) {
    if (name === this.name) return;
    this.show(name);
    this.opened(name);
  }

  key(event) {
    const at = this.tabs.findIndex(({ name }) => name === this.name), last = this.tabs.length - 1;
    const to = { ArrowLeft: at ? at - 1 : last, ArrowRight: at < last ? at + 1 : 0, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.open(this.tabs[to].name);
    this.tabs[to].button.focus();
  }
}

// --- what watching costs: a pill in the run bar, and behind it where the time goes

class Watching {
  constructor() {
    this.value = h("b");
    this.pill = h("button", { type: "button", class: "nbd-pill nbd-watch", "aria-expanded": "false", "aria-haspopup": "dialog", onclick: () => this.toggle(this.box.hidden) }, "watching ", this.value);
    this.body = h("div");
    this.box = h("div", { class: "nbd-popover", role: "dialog", "aria-label": "What watching costs", tabindex: "-1", hidden: true }, this.body);
    this.node = h("span", { class: "nbd-watching", onkeydown: (event) => this.key(event) }, this.pill, this.box);
    this.node.addEventListener("focusout", () => setTimeout(() => { if (!this.node.contains(this.node.getRootNode().activeElement)) this.toggle(false); }, 0));
  }

  key(event) {
    if (event.key !== "Escape" || this.box.hidden) return;
    event.preventDefault();
    event.stopPropagation();
    this.toggle(false);
    this.pill.focus();
  }

  toggle(open) {
    if (open === !this.box.hidden) return;
    this.box.hidden = !open;
    this.pill.setAttribute("aria-expanded", String(open));
    if (!open) return;
    this.fill();
    this.put();
    this.box.focus();
  }

  // Below the pill, and within the dashboard.
  put() {
    const root = this.node.closest(".nbd").getBoundingClientRect(), pill = this.pill.getBoundingClientRect();
    const left = Math.max(root.left + 4, Math.min(pill.left, root.right - this.box.offsetWidth - 4));
    this.box.style.left = `${left - pill.left}px`;
  }

  update(text, cost) {
    setText(this.value, text);
    this.cost = cost;
    this.node.hidden = !text;
    this.pill.disabled = !cost;
    if (!cost) this.toggle(false);
    if (!this.box.hidden) this.fill();
  }

  fill() {
    const { rows, probes, notes } = this.cost;
    const line = ([name, value, share]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value), h("td", { class: "nbd-part" }, share === undefined ? "" : bar(share)));
    this.body.replaceChildren(h("table", {}, h("caption", {}, "What watching costs"), h("tbody", {}, ...rows.map(line))),
      ...(probes.length ? [h("table", {}, h("caption", {}, "Of a sampled step, by what is measured"), h("tbody", {}, ...probes.map(line)))] : []),
      ...notes.map((text) => h("p", { class: "nbd-calm" }, text)));
  }
}

function bar(share) {
  const node = h("span", { class: "nbd-share", "aria-hidden": "true" }, h("span", { class: "nbd-fill" }));
  node.firstElementChild.style.width = `${100 * share}%`;
  return node;
}
