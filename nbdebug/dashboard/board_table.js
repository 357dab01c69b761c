// The table of layers: sorted, filtered and written here, from arrays of float64; only the rows in sight are made.

const ROW = 24;
const SPARE = 8;
const SIGHT = 322; // pixels, as in the stylesheet
const NO_GRADIENT = ["grad_mean", "grad_max", "grad_ratio"];

const FORMS = {
  number,
  percent: (value) => `${Number((100 * value).toPrecision(value >= 0.1 ? 2 : 1))} %`,
  times: (value) => `${value < 100 ? value.toFixed(2) : number(value)} ×`,
  megabytes: (value) => number(value / 1e6),
};

class LayerTable {
  constructor(choice) {
    this.choice = choice;
    this.name = "layers";
    this.arrays = new Map();
    this.sorted = { column: "", falling: true };
    this.order = [];
    this.active = 0;
    this.pool = [];
    this.filter = h("input", { type: "text", placeholder: "filter", "aria-label": "Filter layers", oninput: () => { this.scroll.scrollTop = 0; this.dirty = true; this.draw(); } });
    this.read = h("span", { class: "nbd-read", role: "status" });
    this.groups = h("tr");
    this.head = h("tr");
    this.body = h("tbody", { onkeydown: (event) => this.key(event), onclick: (event) => this.click(event) });
    this.above = h("tr", { "aria-hidden": "true", class: "nbd-room" }, h("td"));
    this.below = h("tr", { "aria-hidden": "true", class: "nbd-room" }, h("td"));
    this.table = h("table", { class: "nbd-layer-table", role: "grid", "aria-label": "Layers" }, h("thead", {}, this.groups, this.head), this.body);
    this.scroll = h("div", { class: "nbd-scroll", onscroll: () => this.render() }, this.table);
    this.hint = h("p", { class: "nbd-calm" });
    this.node = h("div", { class: "nbd-layers" }, h("div", { class: "nbd-line" }, this.filter, this.read), this.scroll, this.hint);
  }

  // --- as a chart is filled: see Board.take

  set(kind, value) {
    if (kind === "figure") { this.made = value; this.built = false; }
    else if (kind === "panel") this.said = value;
    this.dirty = true;
  }

  setArray(column, attribute, value) {
    if (!this.arrays.has(column)) this.arrays.set(column, {});
    this.arrays.get(column)[attribute] = value;
    this.dirty = true;
  }

  drop(key) {
    if (key[1] === "figure") this.made = null;
    else if (key[1] === "array") delete this.arrays.get(key[2])?.[key[3]];
    this.dirty = true;
  }

  // --- drawing

  draw() {
    if (!this.dirty || !this.node.clientWidth) return;
    this.dirty = false;
    setText(this.hint, this.said?.empty ?? "");
    this.hint.hidden = !this.hint.textContent;
    this.scroll.hidden = this.filter.hidden = Boolean(this.said?.empty || !this.made);
    if (this.scroll.hidden) return;
    if (!this.built) this.build();
    this.arrange();
    this.render();
  }

  build() {
    const { names, columns, data, unseen } = this.made;
    this.built = true;
    this.shown = null;
    this.data = new Set(data);
    this.names = [...names];
    this.unseen = new Map();
    for (const [layer, what, why] of unseen) if (layer) this.unseen.set(layer, [...(this.unseen.get(layer) ?? []), { what, why }]);
    for (const layer of this.unseen.keys()) if (!this.names.includes(layer)) this.names.push(layer);
    const spans = [];
    for (const { group } of columns) if (spans.at(-1)?.[0] === group) spans.at(-1)[1] += 1; else spans.push([group, 1]);
    this.groups.replaceChildren(h("th"), ...spans.map(([text, span]) => h("th", { colspan: span, scope: "colgroup" }, text)));
    this.starts = new Set(columns.flatMap(({ group }, index) => group === columns[index - 1]?.group ? [] : [index]));
    this.heads = [{ name: "", head: "layer", about: "in the order of the model" }, ...columns].map((column, index) => {
      const button = h("button", { type: "button", class: "nbd-sort", title: column.about, onclick: () => this.sort(column.name) }, column.head);
      return h("th", { scope: "col", "data-column": column.name, class: this.starts.has(index - 1) ? "nbd-first" : undefined }, button);
    });
    this.head.replaceChildren(...this.heads);
    this.pool = [];
    this.markSorted();
  }

  // Falling first, as what is large stands out; then rising; then the order of the model again.
  sort(column) {
    const { column: before, falling } = this.sorted;
    this.sorted = before !== column || !column ? { column, falling: true } : falling ? { column, falling: false } : { column: "", falling: true };
    this.markSorted();
    this.scroll.scrollTop = 0;
    this.dirty = true;
    this.draw();
  }

  markSorted() {
    for (const head of this.heads) {
      const on = head.dataset.column === this.sorted.column && this.sorted.column;
      if (on) head.setAttribute("aria-sort", this.sorted.falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  arrange() {
    const wanted = this.filter.value.trim().toLowerCase(), { of, path } = this.choice.scope;
    const keep = (name, index) => wanted ? name.toLowerCase().includes(wanted) : !path.length || of[index] >= 0;
    this.order = this.names.flatMap((name, index) => keep(name, index) ? [index] : []);
    const { column, falling } = this.sorted, { values, present } = this.arrays.get(column) ?? {};
    if (values) {
      const rank = (index) => present[index] ? Number.isNaN(values[index]) ? Infinity : values[index] : null;
      const ranks = this.names.map((_, index) => rank(index));
      this.order.sort((a, b) => (ranks[a] === null) - (ranks[b] === null) || (falling ? ranks[b] - ranks[a] : ranks[a] - ranks[b]) || a - b);
    }
    const all = this.names.length - this.data.size;
    setText(this.read, wanted || path.length ? `${count(this.order.length)} of ${plural(all, "layer")}` : plural(all, "layer"));
    this.table.setAttribute("aria-rowcount", String(this.order.length + 2));
    this.active = Math.min(this.active, Math.max(0, this.order.length - 1));
  }

  render() {
    if (!this.built) return;
    const first = Math.max(0, Math.floor(this.scroll.scrollTop / ROW) - SPARE);
    const last = Math.min(this.order.length, first + Math.ceil(Math.max(SIGHT, this.scroll.clientHeight) / ROW) + 2 * SPARE);
    while (this.pool.length < last - first) this.pool.push(this.row());
    const picked = this.choice.layer();
    this.table.dataset.tone = this.found?.tone() ?? "";
    this.pool.forEach((row, slot) => { row.node.hidden = slot >= last - first; if (!row.node.hidden) this.fill(row, first + slot, picked); });
    this.above.firstElementChild.style.height = `${first * ROW}px`;
    this.below.firstElementChild.style.height = `${(this.order.length - last) * ROW}px`;
    this.above.hidden = first === 0;
    this.below.hidden = last >= this.order.length;
    arrange(this.body, [this.above, ...this.pool.map(({ node }) => node), this.below]);
  }

  row() {
    const name = h("span", { class: "nbd-text" }), why = h("span", { class: "nbd-why nbd-mute" });
    const cells = this.made.columns.map((_, index) => h("td", this.starts.has(index) ? { class: "nbd-first" } : {}));
    return { name, why, cells, node: h("tr", { tabindex: "-1" }, h("th", { scope: "row" }, name), ...cells) };
  }

  fill(row, place, picked) {
    const index = this.order[place], name = this.names[index], own = this.unseen.get(name) ?? [];
    row.node.dataset.place = place;
    row.node.setAttribute("aria-rowindex", String(place + 3));
    row.node.tabIndex = place === this.active ? 0 : -1;
    row.node.setAttribute("aria-selected", String(name === picked));
    row.node.classList.toggle("nbd-data", this.data.has(index));
    row.node.classList.toggle("nbd-found", this.found?.layers().has(name) ?? false);
    const base = this.choice.scope.path.length && !this.filter.value ? name : shorten(name, 34);
    setText(row.name, base);
    row.name.title = [name, ...own.map(({ what, why }) => `${what}: ${why}`)].join("\n");
    const state = this.made.states[this.arrays.get("state")?.values[index]];
    this.made.columns.forEach((column, at) => this.cell(row.cells[at], column, index, state));
    this.explain(row, index, own);
  }

  cell(cell, { name, form, low, high }, index, state) {
    const { values, present } = this.arrays.get(name) ?? {};
    const there = Boolean(present?.[index]), value = there ? values[index] : NaN;
    const missing = state && NO_GRADIENT.includes(name);
    const sign = !there ? "" : !Number.isFinite(value) ? "!" : high !== null && value > high ? "▲" : low !== null && value <= low ? "▼" : "";
    const text = missing ? (name === NO_GRADIENT[0] ? state : "") : there ? FORMS[form](value) : "";
    setText(cell, sign && !missing ? `${sign} ${text}` : text);
    cell.classList.toggle("nbd-off", Boolean(sign) && !missing);
    cell.classList.toggle("nbd-mute", Boolean(missing));
    cell.hidden = false;
    cell.colSpan = 1;
  }

  // Why there are no numbers of activations: across their cells.
  explain(row, index, own) {
    const why = own.find(({ what }) => what === "activations")?.why;
    const places = this.made.columns.flatMap(({ group }, at) => group === "activations" ? [at] : []);
    if (!why || !places.length || this.arrays.get("act_mean")?.present?.[index]) return;
    const [first, ...rest] = places.map((at) => row.cells[at]);
    setText(row.why, why);
    row.why.title = why;
    first.replaceChildren(row.why);
    first.colSpan = places.length;
    for (const cell of rest) cell.hidden = true;
  }

  // --- picking

  click(event) {
    const place = event.target.closest("tr")?.dataset.place;
    if (place === undefined) return;
    this.active = Number(place);
    this.pickActive();
  }

  pickActive() {
    const index = this.order[this.active];
    if (index === undefined || this.data.has(index)) return;
    this.mine = true;
    const name = this.names[index];
    this.choice.pickLayer(name === this.choice.layer() ? "" : name);
    this.mine = false;
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / ROW) - 3), last = this.order.length - 1;
    const to = { ArrowUp: this.active - 1, ArrowDown: this.active + 1, PageUp: this.active - page, PageDown: this.active + page, Home: 0, End: last }[event.key];
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.pickActive(); return; }
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.active = Math.max(0, Math.min(last, to));
    this.reveal(this.active);
    this.render();
    this.body.querySelector(`tr[data-place="${this.active}"]:not([hidden])`)?.focus({ preventScroll: true });
  }

  reveal(place) {
    const top = place * ROW, { scrollTop, clientHeight } = this.scroll, head = this.groups.parentElement.offsetHeight;
    if (top < scrollTop) this.scroll.scrollTop = top;
    else if (top + ROW + head > scrollTop + clientHeight) this.scroll.scrollTop = top + ROW + head - clientHeight;
  }

  // A layer was picked, here or elsewhere: shown lit, and, if picked elsewhere, brought into sight.
  // A finding's card lights layers: the first of them is brought into sight.
  show() {
    const lit = this.found?.layers() ?? new Set(), place = this.order.findIndex((index) => lit.has(this.names[index]));
    if (place >= 0 && this.built) this.scroll.scrollTop = Math.max(0, place - 2) * ROW;
    this.render();
  }

  follow() {
    const place = this.order.findIndex((index) => this.names[index] === this.choice.layer());
    if (place >= 0 && !this.mine && this.built) { this.active = place; this.reveal(place); }
    this.render();
  }
}
