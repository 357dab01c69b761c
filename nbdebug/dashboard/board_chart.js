// One chart; and the charts of layers, in which a layer can be picked, and which write as many names as fit.

const LABEL_HEIGHT = 13;
const CLICK_PIXELS = 4;

// --- one chart: skeleton and patch from the kernel, arrays by trace name, drawn with plotly

class Chart {
  // A `heading`, if given, stands for the title: a choice of what the chart shows.
  constructor(name, extra = null, heading = null) {
    this.name = name;
    this.heading = heading;
    this.title = h("h3");
    this.readout = h("span", { class: "nbd-read" });
    this.plot = h("div", { class: "nbd-plot", role: "img" });
    this.hint = h("div", { class: "nbd-hint" });
    this.cursor = h("div", { class: "nbd-cursor", hidden: true });
    this.node = h("section", { class: `nbd-panel nbd-chart nbd-${name}`, "data-panel": name },
      h("header", {}, this.title, heading?.node ?? null, this.readout, extra), h("div", { class: "nbd-canvas" }, this.plot, this.cursor, this.hint));
    this.arrays = new Map();
    this.dirty = false;
    this.off = false; // not on the page: nothing to draw
    this.cursorStep = null;
    this.lit = null; // what a finding's card lights: bands of steps, where it is given
    this.said = { title: "", readout: "", empty: "" };
  }

  set(kind, value) {
    if (kind === "panel") this.said = value;
    else if (kind === "figure") { this.figure = value; this.coloured = null; }
    else if (kind === "patch") this.patch = value;
    this.dirty = true;
  }

  setArray(trace, attribute, value) {
    if (!this.arrays.has(trace)) this.arrays.set(trace, {});
    this.arrays.get(trace)[attribute] = value;
    this.dirty = true;
  }

  drop(key) {
    if (key[1] === "figure") this.figure = null;
    else if (key[1] === "array") delete this.arrays.get(key[2])?.[key[3]];
    this.dirty = true;
  }

  recolour() { this.coloured = null; this.dirty = true; }

  // A vertical line at a step, over the plot as it was last drawn: moving it draws nothing anew.
  pointAt(step) {
    this.cursorStep = step;
    const axis = this.plot._fullLayout?.xaxis;
    const at = step !== null && axis?.d2p ? axis.d2p(step) : -1;
    this.cursor.hidden = !(at >= 0 && at <= axis?._length) || this.plot.style.visibility === "hidden";
    if (this.cursor.hidden) return;
    const { t, h: height } = this.plot._fullLayout._size;
    Object.assign(this.cursor.style, { left: `${axis._offset + at}px`, top: `${t}px`, height: `${height}px` });
  }

  adjust() {} // what only the browser knows: sizes, and what is picked

  drawn() {} // the plot has its axes, for what lies over it

  async draw(plotly, colours) {
    this.dirty = false;
    setText(this.title, this.said.title);
    this.title.classList.toggle("nbd-hidden", Boolean(this.heading && !this.heading.node.hidden));
    setText(this.readout, this.said.readout);
    this.readout.title = this.said.readout;
    this.plot.setAttribute("aria-label", `${this.said.title}: ${this.said.readout || this.said.empty}`);
    if (!this.plot.clientWidth) { this.dirty = true; return; } // while a theme's stylesheet is exchanged, for one
    const drawable = Boolean(plotly && this.figure && !this.said.empty);
    setText(this.hint, this.said.empty || (drawable ? "" : "loading the charts …"));
    this.plot.style.visibility = drawable ? "visible" : "hidden";
    if (!drawable) { this.drawn(); return; }
    this.coloured ??= colours.apply(this.figure);
    const patch = colours.apply(this.patch ?? {});
    const layout = merge(this.coloured.layout, patch.layout);
    const size = { width: Math.max(120, this.plot.clientWidth), height: Math.max(90, this.plot.clientHeight) };
    Object.assign(layout, size, { font: { ...layout.font, family: getComputedStyle(this.plot).fontFamily } });
    const traces = this.coloured.data.map((trace) => ({ ...trace, ...patch.traces?.[trace.name], ...this.arrays.get(trace.name) }));
    const data = this.adjust(traces, layout, colours) ?? traces;
    this.lit?.bands(this, layout, colours, this.name === "story" ? "above" : "below");
    await plotly.react(this.plot, data, layout, { displayModeBar: false, doubleClick: "reset", scrollZoom: false });
    if (!this.zoomed && this.plot.on) { this.zoomed = true; this.plot.on("plotly_relayout", () => this.drawn()); }
    this.drawn();
    this.pointAt(this.cursorStep);
  }

  purge(plotly) { if (plotly) plotly.purge(this.plot); }
}

// --- charts of layers: what is picked has the same outline everywhere

// Which of these labels to write so that none touches another: first those that must be, then every n-th. In pixels.
function fitting(middles, sizes, must = []) {
  const chosen = [];
  const free = (index) => chosen.every((other) => Math.abs(middles[index] - middles[other]) >= (sizes[index] + sizes[other]) / 2 + 2);
  for (const index of must) if (free(index)) chosen.push(index);
  const apart = (stride) => middles.every((_, index) => index % stride || index + stride >= middles.length
    || Math.abs(middles[index + stride] - middles[index]) >= (sizes[index] + sizes[index + stride]) / 2 + 2);
  let stride = 1;
  while (stride < middles.length && !apart(stride)) stride += 1;
  for (let index = Math.floor((stride - 1) / 2); index < middles.length; index += stride) if (!chosen.includes(index) && free(index)) chosen.push(index);
  return chosen.sort((a, b) => a - b);
}

class LayerChart extends Chart {
  // `choice` tells what is picked: row() of the present place in the tree, or ""; pick(key) picks it.
  constructor(name, choice, heading = null) {
    super(name, null, heading);
    this.choice = choice;
    this.found = null; // what a finding's card lights: layers
    this.plot.addEventListener("pointerdown", (event) => this.press(event), true);
    this.plot.classList.add("nbd-pickable");
    this.node.tabIndex = -1;
    this.node.setAttribute("data-lm-suppress-shortcuts", "true");
  }

  press(down) {
    if (down.button) return;
    globalThis.addEventListener("pointerup", (up) => {
      if (Math.hypot(up.clientX - down.clientX, up.clientY - down.clientY) > CLICK_PIXELS) return;
      const key = this.keyAt(up);
      if (!key) return;
      this.node.focus({ preventScroll: true }); // so that Escape is heard here
      this.choice.pick(key);
    }, { once: true });
  }

  at(event) {
    const { left, top } = this.plot.getBoundingClientRect(), { xaxis, yaxis } = this.plot._fullLayout ?? {};
    return xaxis && { x: event.clientX - left - xaxis._offset, y: event.clientY - top - yaxis._offset, xaxis, yaxis };
  }

  keys() { return this.meta?.keys ?? []; }

  picked() { return this.keys().indexOf(this.choice.row()); }

  outline(layout, colours, box) {
    if (this.picked() < 0) return;
    const line = { color: colours.named("brand"), width: 1.5 };
    layout.shapes = [...(layout.shapes ?? []), { type: "rect", line, fillcolor: "rgba(0,0,0,0)", ...box }];
  }

  width(text) {
    const context = (this.pen ??= document.createElement("canvas").getContext("2d"));
    context.font = `10.5px ${getComputedStyle(this.plot).fontFamily}`;
    return context.measureText(text).width + 4;
  }
}

class Bars extends LayerChart {
  keyAt(event) {
    const at = this.at(event);
    return at && at.x >= 0 && at.x <= at.xaxis._length ? this.keys()[Math.round(at.xaxis.p2l(at.x))] : null;
  }

  adjust(traces, layout, colours) {
    this.meta = layout.meta;
    const labels = layout.meta.labels, length = layout.width - layout.template.layout.margin.l - layout.template.layout.margin.r;
    const texts = labels.map((label) => shorten(label, 15)), sizes = texts.map((text) => this.width(text) + 4);
    const middles = labels.map((_, index) => length * (index + 0.6) / (labels.length + 0.2));
    const picked = this.picked();
    const inside = (index) => middles[index] + sizes[index] / 2 < length + 12 && middles[index] - sizes[index] / 2 > -40;
    const lit = this.found?.places(this.keys()) ?? [];
    const shown = fitting(middles, sizes, [...(picked < 0 ? [] : [picked]), ...lit.filter(inside)]).filter((index) => index === picked || inside(index));
    layout.xaxis = { ...layout.xaxis, tickvals: shown, ticktext: shown.map((index) => plain(texts[index])) };
    this.found?.bars(this.keys(), traces, colours);
    this.found?.rows(this.keys(), layout, colours, (first, last) => ({ x0: first - 0.5, x1: last + 0.5, yref: "paper", y0: 0, y1: 1 }));
    this.outline(layout, colours, { x0: picked - 0.5, x1: picked + 0.5, yref: "paper", y0: 0, y1: 1 });
  }
}

class Ridges extends LayerChart {
  keyAt(event) {
    const at = this.at(event), keys = this.keys();
    return at && at.y >= 0 && at.y <= at.yaxis._length ? keys[keys.length - 1 - Math.floor(at.yaxis.p2l(at.y) + 0.12)] ?? null : null;
  }

  adjust(traces, layout, colours) {
    this.meta = layout.meta;
    const { labels, borders } = layout.meta, { t: top, b: bottom } = layout.margin, rows = labels.length;
    const widest = (texts) => 18 + Math.ceil(Math.max(0, ...texts.map((text) => this.width(text))));
    const left = Math.min(122, widest(labels)), letters = Math.floor((left - 14) / 6.1);
    layout.margin = { ...layout.margin, l: left, r: Math.min(118, widest(layout.annotations.map(({ text }) => text))) };
    const [, high] = layout.yaxis.range, pixels = (layout.height - top - bottom - 9) / high, low = -9 / pixels; // room for half a label
    const middles = labels.map((_, index) => index * pixels), sizes = labels.map(() => LABEL_HEIGHT);
    const picked = this.picked(), calm = (note) => note.text.startsWith("σ");
    const must = [...(picked < 0 ? [] : [picked]), ...(this.found?.places(this.keys()) ?? []), ...layout.annotations.flatMap((note, index) => calm(note) ? [] : [index])];
    const shown = fitting(middles, sizes, must);
    layout.yaxis = { ...layout.yaxis, range: [low, high], tickvals: shown.map((index) => rows - 1 - index), ticktext: shown.map((index) => plain(left < 122 ? labels[index] : shorten(labels[index], letters))) };
    layout.annotations = layout.annotations.filter((_, index) => shown.includes(index));
    this.found?.rows(this.keys(), layout, colours, (first, last) => ({ xref: "paper", x0: 0, x1: 1, y0: rows - 1 - last - 0.08, y1: rows - first - 0.1 }));
    this.outline(layout, colours, { xref: "paper", x0: 0, x1: 1, y0: rows - 1 - picked - 0.08, y1: rows - picked - 0.1 });
    for (const trace of traces) trace.text = this.words(borders, trace.meta);
  }

  // The cells in true values; of groups, whose layers differ in unit, in units.
  words(borders, unit) {
    this.known ??= new Map();
    if (!this.known.has(unit)) {
      const text = (value) => unit ? number(value * unit) : `${number(value)}×`;
      this.known.set(unit, borders.slice(1).map((upper, index) => `${text(borders[index])} to ${text(upper)}`));
    }
    return this.known.get(unit);
  }

  recolour() { this.known = null; super.recolour(); }
}

class Lines extends LayerChart {
  async draw(plotly, colours) {
    await super.draw(plotly, colours);
    if (!this.listens && this.plot.on) {
      this.listens = true;
      this.plot.on("plotly_hover", ({ points }) => { this.over = points[0]?.data.name; });
      this.plot.on("plotly_unhover", () => { this.over = null; });
    }
  }

  keyAt() {
    return this.over ? this.keys()[this.meta.traces.indexOf(this.over)] ?? null : null;
  }

  adjust(traces, layout, colours) {
    this.meta = layout.meta;
    const { keys, labels, traces: names, lit } = layout.meta, steps = this.arrays.get("steps")?.x ?? [];
    for (const trace of traces) trace.x = steps;
    const band = traces.find(({ name }) => name === "most");
    if (band) band.fillcolor = band.fillcolor.replace("rgb(", "rgba(").replace(")", ",0.14)");
    const key = keys.includes(this.choice.layer()) ? this.choice.layer() : keys.includes(this.choice.row()) ? this.choice.row() : lit?.key;
    const index = keys.lastIndexOf(key), trace = traces.find(({ name }) => name === names[index]);
    if (!trace) return this.found?.lines(keys, names, traces, colours) ?? traces;
    const color = key === lit?.key ? lit.color : colours.named("brand");
    Object.assign(trace, { line: { ...trace.line, color, width: 2 }, opacity: 1 });
    const picked = key !== lit?.key || key === this.choice.layer();
    if (picked) trace.line.width = 2.4;
    this.label(trace, layout, plain(shorten(labels[index], 24)), color);
    const ordered = [...traces.filter((each) => each !== trace), trace];
    return this.found?.lines(keys, names, ordered, colours) ?? ordered;
  }

  // The name at the end of the line, on the side with more room; the band's name makes way for it.
  label(trace, layout, text, color) {
    const last = trace.y?.findLast?.((value) => Number.isFinite(value));
    if (last === undefined) return;
    const { type, range } = layout.yaxis, y = type === "log" ? Math.log10(last) : last;
    const share = (y - range[0]) / (range[1] - range[0]), above = share < 0.85;
    const others = (layout.annotations ?? []).map((note) => Math.abs((note.y - range[0]) / (range[1] - range[0]) - share) < 0.16 ? { ...note, x: 0, xanchor: "left" } : note);
    const note = { xref: "paper", x: 1, xanchor: "right", y, yanchor: above ? "bottom" : "top", yshift: above ? 5 : -5, text, showarrow: false, font: { size: 10.5, color } };
    layout.annotations = [...others, { ...note, bgcolor: layout.paper_bgcolor ?? layout.template.layout.paper_bgcolor, opacity: 0.9, borderpad: 1 }];
  }
}
