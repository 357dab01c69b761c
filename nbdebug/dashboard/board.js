// The view itself. Last of the files board*.js: it makes the others' parts, and exports.

// --- the view: puts the parts together, tells the kernel when it is ready, awake, done drawing, gone

class Board {
  constructor(model, el) {
    this.model = model;
    this.id = `v${Math.random().toString(36).slice(2)}${Date.now().toString(36)}`;
    this.parts = new Map();
    this.toAcknowledge = null;
    this.loader = plotlyOfPage();
    const command = (name, rest = {}) => { if (!this.closed) this.send("command", { command: name, ...rest }); };
    this.choice = new Choice((what) => { if (!this.closed) this.send("focus", what); }, () => this.follow(), () => Boolean(this.closed));
    this.bar = new RunBar(command, (step) => this.charts.loss.pointAt(step));
    this.controls = new Controls(command);
    this.breakpoints = new Breakpoints(command);
    this.batch = new Batch();
    this.samples = new Samples();
    this.finder = new Finder(command);
    this.search = new Search(command);
    this.checks = new Checks(command);
    this.change = new Change(command);
    this.lit = new Lit(this.choice, () => this.relight());
    this.findings = new Findings(command, this.lit);
    this.runs = new Runs(command, (run, drawn) => { if (!this.closed) this.send("overlay", { run, drawn }); });
    this.snapshots = new Snapshots(command);
    this.runs.node.append(this.snapshots.node);
    this.place = new Place(this.choice);
    this.table = new LayerTable(this.choice);
    const kind = (histogram) => { this.choice.send({ histogram }); };
    this.kinds = [new Pick("Distributions of", kind, "nbd-heading"), new Pick("Story of", kind)];
    this.quantities = new Pick("Over time", (quantity) => this.choice.send({ quantity }), "nbd-heading");
    this.log = h("input", { type: "checkbox", onchange: () => { this.logChosen = true; this.charts.loss.dirty = true; this.schedule(); } });
    const losses = h("span", { class: "nbd-tools" }, h("label", { class: "nbd-switch" }, "log", this.log));
    this.charts = {
      loss: new Chart("loss", losses),
      gradient_flow: new Bars("gradient_flow", this.choice),
      distributions: new Ridges("distributions", this.choice, this.kinds[0]),
      over_time: new Lines("over_time", this.choice, this.quantities),
      story: new Chart("story", this.kinds[1].node),
      verdict: new Chart("verdict"),
      lr_curve: this.finder.chart,
      search: this.search.chart,
    };
    const add = (condition) => this.breakpoints.add(condition);
    this.aims = [new LossAim(this.charts.loss, "Break at a loss", add), new LayersAim(this.charts.over_time, "Break at a value of layers", add)];
    losses.prepend(this.aims[0].button);
    this.charts.over_time.node.firstElementChild.append(this.aims[1].button);
    this.charts.loss.adjust = (_, layout) => this.adjustLoss(layout);
    this.layered = ["gradient_flow", "distributions", "over_time"].map((name) => this.charts[name]);
    this.sinks = { ...this.charts, layers: this.table };
    for (const name of ["loss", "over_time", "story"]) this.charts[name].lit = this.lit;
    for (const chart of [...this.layered, this.table]) chart.found = this.lit;
    this.verdict = new Verdict(this.charts.verdict);
    this.tabs = new Tabs("Layers, runs, batch, samples, learning rate, search and changes", [
      { name: "layers", title: "Layers", panel: h("div", { class: "nbd-layers-tab" }, this.table.node, this.charts.story.node) },
      { name: "runs", title: "Runs", panel: h("div", { class: "nbd-runs-tab" }, this.runs.node, this.verdict.node) },
      { name: "batch", title: "Batch", panel: this.batch.node },
      { name: "samples", title: "Samples", panel: this.samples.node },
      { name: "checks", title: "Checks", panel: this.checks.node },
      { name: "finder", title: "LR finder", panel: this.finder.node },
      { name: "search", title: "Search", panel: this.search.node },
      { name: "change", title: "Change", panel: this.change.node },
    ], (tab) => this.openTab(tab));
    this.root = h("div", { class: "nbd", onkeydown: (event) => this.key(event) }, this.grid = h("div", { class: "nbd-grid" }, this.bar.node, h("div", { class: "nbd-left" }, this.controls.node, this.breakpoints.node),
      this.place.node, this.charts.loss.node, this.charts.gradient_flow.node, this.charts.distributions.node, this.charts.over_time.node,
      this.findings.node, this.tabs.node));
    this.switchCharts();
    el.append(this.root);
    this.colours = new Colours(this.root);
    this.connect();
  }

  connect() {
    const page = new AbortController();
    const listen = { signal: page.signal };
    this.disconnect = [() => page.abort()];
    const hear = (content, buffers) => this.hear(content, buffers);
    this.model.on("msg:custom", hear);
    const gone = () => { this.close("no kernel listens: run the cell again"); };
    this.model.on("comm_live_update", gone);
    this.disconnect.push(() => { this.model.off("msg:custom", hear); this.model.off("comm_live_update", gone); });
    const seen = new IntersectionObserver((entries) => { this.near = entries.at(-1).isIntersecting; this.wakeOrSleep(); }, { rootMargin: "200px" });
    seen.observe(this.root);
    document.addEventListener("visibilitychange", () => this.wakeOrSleep(), listen);
    globalThis.addEventListener("pagehide", () => this.sleep(), listen);
    const sized = new ResizeObserver(() => { for (const chart of Object.values(this.charts)) chart.dirty = true; this.schedule(); });
    for (const node of [this.root, ...Object.values(this.charts).map(({ plot }) => plot)]) sized.observe(node);
    const themed = new MutationObserver(() => { this.retheme(); setTimeout(() => this.retheme(), 400); });
    for (const node of [document.body, document.documentElement]) themed.observe(node, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class", "theme"] });
    this.disconnect.push(() => { seen.disconnect(); sized.disconnect(); themed.disconnect(); });
    this.loader.promise.then(() => { for (const chart of Object.values(this.charts)) chart.dirty = true; this.schedule(); });
  }

  send(type, rest = {}) {
    try {
      this.model.send({ type, view: this.id, ...rest });
    } catch (error) {
      console.debug("nbdebug: nothing listens", error);
      if (!this.removed) this.close("no kernel listens: run the cell again");
    }
  }

  wakeOrSleep() {
    const awake = Boolean(this.near) && document.visibilityState === "visible";
    if (awake && !this.awake) {
      this.awake = true;
      this.sign = setInterval(() => this.signOfLife(), SIGN_MS);
      this.loader.join(this.id, () => this.send("plotly"));
      this.send("ready", { tab: this.tabs.name });
      this.schedule();
    } else if (!awake) this.sleep();
  }

  sleep() {
    if (!this.awake) return;
    this.awake = false;
    clearInterval(this.sign);
    this.send("bye");
  }

  // When it is quiet, say again what was drawn last: a kernel that lost a message, or this view, starts anew. ipykernel
  // before 7.4 may leave a message lying until the next one comes (its #1554).
  signOfLife() {
    if (Date.now() - (this.heardAt ?? 0) >= SIGN_MS && !this.closed) this.send("ack", { number: this.drawn ?? -1 });
  }

  hear(content, buffers) {
    this.heardAt = Date.now();
    if (content.type === "plotly") this.loader.deliver(buffers[0]);
    else if (content.type === "closed") { this.ended = true; this.close("debugger closed"); }
    else if (content.type === "frame" && content.to.includes(this.id)) {
      this.take(content, buffers);
      if (this.closed && !this.ended) this.reopen();
      this.toAcknowledge = content.number;
      this.schedule();
    }
  }

  take({ whole }, [head, numbers]) {
    const { gone, arrays, parts } = JSON.parse(new TextDecoder().decode(head));
    if (whole) for (const sink of Object.values(this.sinks)) sink.arrays.clear();
    for (const key of gone) if (key.length > 1) this.sinks[key[0]].drop(key);
    const values = new Float64Array(numbers.buffer.slice(numbers.byteOffset, numbers.byteOffset + numbers.byteLength));
    let at = 0;
    for (const [[panel, , trace, attribute], shape, kept] of arrays) {
      const size = shape.reduce((a, b) => a * b, 1);
      const flat = new Float64Array(size);
      if (kept) flat.set(flatOf(this.sinks[panel].arrays.get(trace)[attribute]).subarray(0, kept));
      flat.set(values.subarray(at, at + size - kept), kept);
      at += size - kept;
      this.sinks[panel].setArray(trace, attribute, shape.length === 2 ? rowsOf(flat, shape) : flat);
    }
    for (const [key, value] of parts) {
      if (key.length > 1) this.sinks[key[0]].set(key[1], value);
      else { this.parts.set(key[0], value); this.changed = (this.changed ?? new Set()).add(key[0]); }
    }
  }

  schedule() {
    if (!this.frame && !this.removed) this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  async draw() {
    if (this.drawing) { this.again = true; return; }
    this.drawing = true;
    const number = this.toAcknowledge;
    this.drawParts();
    try {
      const dirty = this.dirty();
      await Promise.all(dirty.map((chart) => chart.draw(this.loader.plotly, this.colours)));
    } catch (error) {
      console.warn("nbdebug: a chart could not be drawn", error);
    }
    this.drawing = false;
    if (number !== null && this.awake && this.loader.plotly && !this.removed) {
      if (this.toAcknowledge === number) this.toAcknowledge = null;
      this.drawn = number;
      this.send("ack", { number });
    }
    if (this.again) { this.again = false; this.schedule(); }
    else if (this.awake && this.dirty().length) setTimeout(() => this.schedule(), RETRY_MS);
  }

  dirty() { return Object.values(this.charts).filter((chart) => chart.dirty && !chart.off); }

  drawParts() {
    const changed = this.changed ?? new Set();
    this.changed = null;
    if (changed.has("palette")) { this.colours.names = this.parts.get("palette"); this.retheme(); }
    if (changed.has("scope")) this.choice.scope = this.parts.get("scope");
    if (changed.has("focus")) this.drawFocus(this.parts.get("focus"));
    if (this.table.made) this.choice.names = this.table.made.names;
    if (changed.has("scope") || changed.has("focus")) { this.place.update(this.closed); this.grid.classList.toggle("nbd-grouped", this.choice.scope.grouped); this.table.dirty = true; }
    this.table.draw();
    if (changed.has("bar")) this.bar.update(this.parts.get("bar"));
    if (changed.has("bar") || changed.has("cost")) this.bar.watching.update(this.parts.get("bar").watching, this.parts.get("cost"));
    if (changed.has("stops")) this.bar.rewind.mark(this.parts.get("stops"));
    if (changed.has("rewind")) this.bar.rewind.update(this.parts.get("rewind"));
    if (changed.has("controls")) this.controls.update(this.parts.get("controls"));
    if (changed.has("outcome")) this.controls.report(this.parts.get("outcome"));
    if (changed.has("breakpoints")) this.breakpoints.update(this.parts.get("breakpoints"));
    if (changed.has("batch")) this.batch.update(this.parts.get("batch"));
    if (changed.has("looks")) this.samples.looks(this.parts.get("looks"));
    if (changed.has("samples")) this.samples.update(this.parts.get("samples"));
    if (changed.has("checks")) this.checks.update(this.parts.get("checks"));
    if (changed.has("finder")) this.finder.update(this.parts.get("finder"));
    if (changed.has("searching")) this.search.update(this.parts.get("searching"));
    if (changed.has("change")) this.change.update(this.parts.get("change"));
    if (changed.has("own")) this.change.own.show(this.parts.get("own"));
    if (changed.has("findings")) this.findings.update(this.parts.get("findings"), this.closed);
    if (changed.has("runs") && this.parts.has("runs")) this.runs.update(this.parts.get("runs"), this.closed);
    if ((changed.has("snapshots") || changed.has("runs")) && this.parts.has("runs")) this.snapshots.update(this.parts.get("snapshots"), this.parts.get("runs"), this.closed);
    if (changed.has("verdict")) { this.verdict.update(this.parts.get("verdict")); this.switchCharts(); }
    if (this.closed) this.sayClosed();
  }

  // --- layers: what is picked, and which tab is open

  drawFocus(state) {
    this.choice.update(state);
    const titled = (options) => options.map(([value, text]) => [value, text[0].toUpperCase() + text.slice(1)]);
    this.kinds[0].update(titled(state.histograms), state.histogram);
    this.kinds[1].update(state.histograms, state.histogram);
    this.quantities.update(titled(state.quantities), state.quantity);
    for (const chart of this.layered) chart.dirty = true;
  }

  follow() {
    for (const chart of this.layered) chart.dirty = true;
    this.table.follow();
    this.place.update(this.closed);
    this.schedule();
  }

  relight() {
    for (const name of ["loss", "story"]) this.charts[name].dirty = true;
    for (const chart of this.layered) chart.dirty = true;
    this.table.show();
    this.findings.mark();
    this.schedule();
  }

  openTab(tab) {
    this.switchCharts();
    this.table.dirty = true;
    if (!this.closed) this.send("tab", { tab });
    this.schedule();
  }

  // What is hidden is not drawn.
  switchCharts() {
    const { story, verdict, lr_curve: curve, search } = this.charts;
    story.off = this.tabs.name !== "layers";
    verdict.off = this.tabs.name !== "runs" || this.verdict.node.hidden;
    curve.off = this.tabs.name !== "finder";
    search.off = this.tabs.name !== "search";
    for (const chart of [story, verdict, curve, search]) if (!chart.off) chart.dirty = true;
  }

  key(event) {
    if (event.key !== "Escape" || event.defaultPrevented || /^(input|select)$/i.test(event.target.tagName)) return;
    if (this.lit.card) { event.preventDefault(); this.lit.light(null); }
    else if (this.choice.scope.path.length && !this.closed) { event.preventDefault(); this.choice.up(); }
    else if (this.choice.layer()) { event.preventDefault(); this.choice.pickLayer(""); }
  }

  adjustLoss(layout) {
    if (!this.logChosen) this.log.checked = Boolean(layout.meta?.log);
    const log = this.log.checked;
    layout.yaxis = { ...layout.yaxis, type: log ? "log" : "linear", nticks: log ? 3 : layout.yaxis.nticks }; // 3: 1, 2, 5, 10
  }

  retheme() {
    if (this.removed || !this.colours.read()) return;
    for (const chart of Object.values(this.charts)) chart.recolour();
    this.schedule();
  }

  // The picture stays; what acts is switched off. A frame from a kernel that came back switches it on again.
  close(reason) {
    this.closed = reason;
    (this.changed ??= new Set()).add("runs");
    this.schedule();
    if (!this.parts.has("bar")) this.sayClosed();
  }

  sayClosed() {
    this.bar.close(this.closed);
    this.controls.close(this.closed);
    this.breakpoints.close(this.closed);
    this.finder.close(this.closed);
    this.checks.close(this.closed);
    this.findings.close(this.closed);
    this.search.close(this.closed);
    this.change.close(this.closed);
    for (const aim of this.aims) aim.close(this.closed);
    this.place.update(this.closed);
    for (const pick of [...this.kinds, this.quantities]) pick.close(true);
    this.root.classList.add("nbd-closed");
  }

  reopen() {
    this.closed = "";
    this.bar.close("");
    this.controls.close("");
    this.breakpoints.close("");
    this.finder.close("");
    this.checks.close("");
    this.findings.close("");
    this.search.close("");
    this.change.close("");
    for (const aim of this.aims) aim.close("");
    for (const pick of [...this.kinds, this.quantities]) pick.close(false);
    this.root.classList.remove("nbd-closed");
    this.changed = new Set(this.parts.keys());
    this.schedule();
  }

  remove() {
    this.sleep();
    this.removed = true;
    cancelAnimationFrame(this.frame);
    this.loader.leave(this.id);
    this.change.own.show([]);
    for (const end of this.disconnect) end();
    for (const chart of Object.values(this.charts)) chart.purge(this.loader.plotly);
  }
}

function rowsOf(flat, [rows, columns]) {
  return Array.from({ length: rows }, (_, row) => flat.subarray(row * columns, (row + 1) * columns));
}

function flatOf(array) {
  return ArrayBuffer.isView(array) ? array : new Float64Array(array[0].buffer);
}

export default {
  render({ model, el }) {
    const board = new Board(model, el);
    return () => board.remove();
  },
};
