// Breakpoints on a chart: thin lines for those there are, and one that follows the mouse for the next.

const LABEL_WIDTH = 8, LABEL_ROOM = 16;

class Aim {
  // `add` takes a condition. The lines lie over the plot as it was last drawn: moving one draws nothing anew.
  constructor(chart, label, add) {
    this.chart = chart;
    this.add = add;
    this.closed = "";
    this.button = h("button", { type: "button", class: "nbd-tool", "aria-pressed": "false", "aria-label": label,
      title: "break at …: click in the chart where training is to stop", onclick: () => this.turn(!this.on), onkeydown: (event) => this.key(event) },
    icon("M1 8h3.6M11.4 8H15M8 5.2a2.8 2.8 0 1 0 0 5.6a2.8 2.8 0 1 0 0-5.6z"));
    this.lines = h("div", { class: "nbd-break-lines" });
    this.line = h("div", { class: "nbd-break-line nbd-aimed", hidden: true }, h("span"));
    this.area = h("div", { class: "nbd-aim", hidden: true, onpointermove: (event) => this.move(event), onpointerleave: () => { this.line.hidden = true; },
      onclick: (event) => { if (this.line.hidden || event.shiftKey !== this.shift) this.move(event); this.take(); } });
    chart.plot.after(this.lines, this.line, this.area);
    chart.drawn = () => this.place();
  }

  // What the kernel says of the breakpoints on this chart's quantity.
  breaks() { return this.chart.patch?.layout?.meta?.breaks ?? { name: "", lines: [], able: false }; }

  turn(on) {
    this.on = on && !this.button.disabled;
    this.button.setAttribute("aria-pressed", String(this.on));
    this.area.hidden = !this.on;
    this.line.hidden = true;
    if (this.on) this.place();
  }

  key(event) {
    if (event.key !== "Escape" || !this.on) return;
    event.preventDefault();
    this.turn(false);
  }

  close(closed) { this.closed = closed; this.place(); }

  axes() {
    const layout = this.chart.plot._fullLayout, shown = this.chart.plot.style.visibility === "visible" && layout?.yaxis?.d2p;
    return shown ? { x: layout.xaxis, y: layout.yaxis } : null;
  }

  place() {
    const axes = this.axes();
    this.button.disabled = !axes || !this.breaks().able || Boolean(this.closed);
    if (this.on && this.button.disabled) this.turn(false);
    if (!axes) { this.lines.replaceChildren(); return; }
    const box = { left: `${axes.x._offset}px`, width: `${axes.x._length}px` };
    Object.assign(this.area.style, box, { top: `${axes.y._offset}px`, height: `${axes.y._length}px` });
    Object.assign(this.line.style, box);
    const seen = this.breaks().lines.filter((line) => this.shows(line)).map((line) => ({ ...line, at: axes.y.d2p(line.value) }));
    this.lines.replaceChildren(...seen.filter(({ at }) => at >= 0 && at <= axes.y._length).map(({ at, text, enabled }) => {
      const node = h("div", { class: `nbd-break-line${enabled ? "" : " nbd-idle"}${at < LABEL_ROOM ? " nbd-below" : ""}` }, h("span", {}, text));
      Object.assign(node.style, box, { top: `${axes.y._offset + at}px` });
      return node;
    }));
  }

  move(event) {
    const axes = this.axes(), { left, top } = this.area.getBoundingClientRect();
    if (!axes) return;
    const at = Math.min(axes.y._length, Math.max(0, event.clientY - top)), x = event.clientX - left;
    this.shift = event.shiftKey;
    this.condition = this.words(Number(axes.y.p2d(at).toPrecision(3)), event.shiftKey);
    const label = this.line.firstElementChild;
    setText(label, this.condition);
    this.line.style.top = `${axes.y._offset + at}px`;
    this.line.classList.toggle("nbd-below", at < LABEL_ROOM);
    this.line.hidden = false;
    const room = axes.x._length - label.offsetWidth - LABEL_WIDTH;
    label.style.left = `${Math.max(2, Math.min(x + LABEL_WIDTH, room))}px`;
  }

  take() {
    this.add(this.condition);
    this.turn(false);
  }

  latest(trace) { return this.chart.arrays.get(trace)?.y?.findLast((each) => Number.isFinite(each)); }
}

// What is not so now is waited for; Shift waits for a fall.
class LossAim extends Aim {
  shows({ of }) { return of === ""; }

  words(value, shift) {
    const { name, trace } = this.breaks();
    return `${name} ${shift || value <= this.latest(trace) ? "<" : ">"} ${value}`;
  }
}

// Of the layer picked, or of the highest of all; where all are to fall, and the value is below all, of the lowest.
class LayersAim extends Aim {
  shows({ of }) { return of === "*" || (of !== "" && of === this.chart.choice.layer()); }

  words(value, shift) {
    const { name } = this.breaks(), { keys, traces } = this.chart.meta, layer = this.chart.choice.layer();
    if (layer && !layer.includes("\\") && !(layer.includes('"') && layer.includes("'"))) {
      const quote = layer.includes('"') ? "'" : '"', latest = this.latest(traces[keys.lastIndexOf(layer)]);
      return `${name}[${quote}${layer}${quote}] ${shift || value <= latest ? "<" : ">"} ${value}`;
    }
    const ends = ["least", "most", ...traces].map((trace) => this.latest(trace)).filter((each) => each !== undefined);
    const falls = shift || value <= Math.max(...ends);
    return falls ? `${value < Math.min(...ends) ? "min" : "max"}(${name}) < ${value}` : `max(${name}) > ${value}`;
  }
}
