// What a finding's card lights in the charts: its steps as bands, its layers in its colour. A second kind of mark,
// beside the one layer that is picked; each view has its own.

const BAND = 0.13, ROW_BAND = 0.16, DIM = 0.25;

class Lit {
  // `choice` knows the layers' names and rows; `changed` is called when something else is lit.
  constructor(choice, changed) {
    this.choice = choice;
    this.changed = changed;
    this.card = null;
  }

  get key() { return this.card?.key ?? ""; }

  tone() { return { critical: "bad", warning: "warn" }[this.card?.severity] ?? "brand"; }

  toggle(card) { this.light(card.key === this.key ? null : card); }

  light(card) {
    if (this.card === card) return;
    this.card = card;
    this.changed();
  }

  // A frame came: the card may know more by now, or be gone.
  update(cards) {
    if (!this.card) return;
    const found = cards.find(({ key }) => key === this.key) ?? null;
    if (JSON.stringify([found?.lit, found?.severity]) !== JSON.stringify([this.card.lit, this.card.severity])) this.light(found);
    else this.card = found;
  }

  // The layers lit, of those there are: a card may name a part of the model, or a weight of a layer.
  layers() {
    const wanted = this.card?.lit.layers ?? [], names = this.choice.names;
    if (this.known?.wanted === wanted && this.known.names === names) return this.known.found;
    const exact = new Set(wanted);
    const within = (name) => exact.has(name) || wanted.some((each) => name.startsWith(`${each}.`) || (name && each.startsWith(`${name}.`) && !names.includes(each)));
    this.known = { wanted, names, found: new Set(names.filter(within)) };
    return this.known.found;
  }

  // The keys of the rows of the present place in the tree with any such layer, and of the layers themselves.
  keys() {
    const { of, rows } = this.choice.scope, layers = this.layers(), found = new Set(layers);
    this.choice.names.forEach((name, index) => { if (layers.has(name) && of[index] >= 0) found.add(rows[of[index]][0]); });
    return found;
  }

  colour(colours, share) { return colours.named(this.tone()).replace("rgb(", "rgba(").replace(")", `,${share})`); }

  // Bands from first to last seen, no further than there are curves: so the axis stays as it is.
  bands(chart, layout, colours, layer = "below") {
    const ends = [...chart.arrays.values()].flatMap(({ x }) => x?.length ? [x[0], x[x.length - 1]] : []).filter(Number.isFinite);
    if (!this.card || !ends.length) return;
    const low = Math.min(...ends), high = Math.max(...ends), within = (step) => Math.min(high, Math.max(low, step));
    const shapes = this.card.lit.spells.filter(([first]) => first <= high).map(([first, last]) => {
      const x0 = within(first), x1 = within(last ?? high), line = { color: this.colour(colours, 0.75), width: x1 > x0 ? 0 : 1.5 };
      const ends = { x0, x1, xref: "x", yref: "paper", y0: 0, y1: 1, name: "lit" };
      return x1 > x0 ? { type: "rect", ...ends, fillcolor: this.colour(colours, BAND), line, layer } : { type: "line", ...ends, line, layer };
    });
    layout.shapes = [...shapes, ...(layout.shapes ?? [])];
  }

  // Neighbours that are lit have one band together: [first, last] of each run of places.
  runs(keys) {
    const lit = this.keys(), runs = [];
    if (this.card) keys.forEach((key, place) => {
      if (!lit.has(key)) return;
      if (runs.at(-1)?.[1] === place - 1) runs.at(-1)[1] = place; else runs.push([place, place]);
    });
    return runs;
  }

  rows(keys, layout, colours, box) {
    const look = { type: "rect", fillcolor: this.colour(colours, ROW_BAND), line: { width: 0 }, layer: "below", name: "lit" };
    layout.shapes = [...this.runs(keys).map(([first, last]) => ({ ...look, ...box(first, last) })), ...(layout.shapes ?? [])];
  }

  places(keys) { return this.runs(keys).flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, at) => first + at)); }

  // Bars of lit layers in the card's colour.
  bars(keys, traces, colours) {
    const places = new Set(this.places(keys)), tone = colours.named(this.tone());
    if (!places.size) return;
    const each = (colour) => keys.map((_, place) => places.has(place) ? tone : colour);
    for (const trace of traces) {
      if (trace.name === "mean") trace.marker = { ...trace.marker, color: each(trace.marker.color) };
      if (trace.name === "max") trace.marker = { ...trace.marker, line: { ...trace.marker.line, color: each(trace.marker.line.color) } };
    }
  }

  // Lines of lit layers in the card's colour and over the others, which are dimmed.
  lines(keys, names, traces, colours) {
    const places = this.places(keys), lit = new Set(places.map((place) => names[place]));
    if (!lit.size) return traces;
    const all = new Set(names), tone = colours.named(this.tone());
    for (const trace of traces) {
      if (lit.has(trace.name)) Object.assign(trace, { line: { ...trace.line, color: tone, width: Math.max(1.8, trace.line.width) }, opacity: 1 });
      else if (all.has(trace.name)) trace.opacity = Math.min(trace.opacity ?? 1, DIM);
    }
    return [...traces.filter(({ name }) => !lit.has(name)), ...traces.filter(({ name }) => lit.has(name))];
  }
}
