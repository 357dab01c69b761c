// The view itself, and the cards of findings. Last of the files board*.js: it makes the others' parts, and exports.

class Findings {
  constructor() {
    this.summary = h("span", { class: "nbd-read" });
    this.cards = h("div", { class: "nbd-cards" });
    this.node = h("section", { class: "nbd-panel nbd-findings", "aria-label": "Findings" },
      h("header", {}, h("h3", {}, "Findings"), this.summary), this.cards);
    this.known = new Map();
  }

  update({ summary, cards }) {
    setText(this.summary, summary);
    const nodes = new Map(cards.map((card) => [JSON.stringify(card), card]));
    const known = new Map([...nodes].map(([key, card]) => [key, this.known.get(key) ?? this.card(card)]));
    this.known = known;
    this.cards.replaceChildren(...(known.size ? known.values() : [h("p", { class: "nbd-calm" }, "Nothing to report.")]));
  }

  card({ severity, title, why, detail, where }) {
    return h("article", { class: `nbd-card nbd-${severity}` },
      h("div", { class: "nbd-card-head" }, h("b", {}, title), h("span", { class: "nbd-severity" }, severity)),
      h("p", {}, why), h("p", { class: "nbd-where" }, where),
      detail ? h("details", {}, h("summary", {}, "Detail"), h("pre", { tabindex: "0" }, detail)) : null);
  }
}

// --- the view: puts the parts together, tells the kernel when it is ready, awake, done drawing, gone

class Board {
  constructor(model, el) {
    this.model = model;
    this.id = `v${Math.random().toString(36).slice(2)}${Date.now().toString(36)}`;
    this.parts = new Map();
    this.toAcknowledge = null;
    this.loader = plotlyOfPage();
    const command = (name, rest = {}) => { if (!this.closed) this.send("command", { command: name, ...rest }); };
    this.bar = new RunBar(command, (step) => this.charts.loss.pointAt(step));
    this.controls = new Controls(command);
    this.findings = new Findings();
    this.runs = new Runs(command, (run, drawn) => { if (!this.closed) this.send("overlay", { run, drawn }); });
    this.snapshots = new Snapshots(command);
    this.runs.node.append(this.snapshots.node);
    this.log = h("input", { type: "checkbox", onchange: () => { this.logChosen = true; this.charts.loss.dirty = true; this.schedule(); } });
    this.charts = {
      loss: new Chart("loss", h("label", { class: "nbd-switch" }, "log", this.log)),
      gradient_flow: new Chart("gradient_flow"),
      activations: new Chart("activations"),
      verdict: new Chart("verdict"),
    };
    this.verdict = new Verdict(this.charts.verdict);
    this.root = h("div", { class: "nbd" }, h("div", { class: "nbd-grid" }, this.bar.node, this.controls.node,
      this.charts.loss.node, this.charts.gradient_flow.node, this.charts.activations.node, this.findings.node,
      h("div", { class: "nbd-lower" }, this.runs.node, this.verdict.node)));
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
      this.send("ready");
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
    if (whole) for (const chart of Object.values(this.charts)) chart.arrays.clear();
    for (const key of gone) if (key.length > 1) this.charts[key[0]].drop(key);
    const values = new Float64Array(numbers.buffer.slice(numbers.byteOffset, numbers.byteOffset + numbers.byteLength));
    let at = 0;
    for (const [[panel, , trace, attribute], shape, kept] of arrays) {
      const size = shape.reduce((a, b) => a * b, 1);
      const flat = new Float64Array(size);
      if (kept) flat.set(this.charts[panel].arrays.get(trace)[attribute].subarray(0, kept));
      flat.set(values.subarray(at, at + size - kept), kept);
      at += size - kept;
      this.charts[panel].setArray(trace, attribute, shape.length === 2 ? rowsOf(flat, shape) : flat);
    }
    for (const [key, value] of parts) {
      if (key.length > 1) this.charts[key[0]].set(key[1], value);
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
      await Promise.all(dirty.map((chart) => chart.draw(this.loader.plotly, this.colours, chart.name === "loss" ? (layout) => this.adjustLoss(layout) : null)));
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
    if (changed.has("bar")) this.bar.update(this.parts.get("bar"));
    if (changed.has("stops")) this.bar.rewind.mark(this.parts.get("stops"));
    if (changed.has("rewind")) this.bar.rewind.update(this.parts.get("rewind"));
    if (changed.has("controls")) this.controls.update(this.parts.get("controls"));
    if (changed.has("outcome")) this.controls.report(this.parts.get("outcome"));
    if (changed.has("findings")) this.findings.update(this.parts.get("findings"));
    if (changed.has("runs") && this.parts.has("runs")) this.runs.update(this.parts.get("runs"), this.closed);
    if ((changed.has("snapshots") || changed.has("runs")) && this.parts.has("runs")) this.snapshots.update(this.parts.get("snapshots"), this.parts.get("runs"), this.closed);
    if (changed.has("verdict")) this.verdict.update(this.parts.get("verdict"));
    if (this.closed) this.sayClosed();
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
    this.root.classList.add("nbd-closed");
  }

  reopen() {
    this.closed = "";
    this.bar.close("");
    this.controls.close("");
    this.root.classList.remove("nbd-closed");
    this.changed = new Set(this.parts.keys());
    this.schedule();
  }

  remove() {
    this.sleep();
    this.removed = true;
    cancelAnimationFrame(this.frame);
    this.loader.leave(this.id);
    for (const end of this.disconnect) end();
    for (const chart of Object.values(this.charts)) chart.purge(this.loader.plotly);
  }
}

function rowsOf(flat, [rows, columns]) {
  return Array.from({ length: rows }, (_, row) => flat.subarray(row * columns, (row + 1) * columns));
}

export default {
  render({ model, el }) {
    const board = new Board(model, el);
    return () => board.remove();
  },
};
