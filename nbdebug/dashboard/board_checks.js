// The checks' tab, and what a finding's card shows beside its words: evidence, a small picture.

class Checks {
  constructor(command) {
    this.command = command;
    this.closed = "";
    this.button = h("button", { type: "button", class: "nbd-main", onclick: guarded(() => command("preflight")) }, "Check everything");
    this.hint = h("p", { class: "nbd-calm" });
    this.doing = h("span", { role: "status" });
    this.cancel = h("button", { type: "button", onclick: guarded(() => command("pause")) }, "End the checks");
    this.progress = h("div", { class: "nbd-find-doing", hidden: true }, this.doing, this.cancel);
    this.refusal = h("p", { class: "nbd-refused", role: "status" });
    this.sentence = h("p", { class: "nbd-checks-sentence", role: "status" });
    this.notes = h("ul", { class: "nbd-checks-notes" });
    this.list = h("ul", { class: "nbd-checklist", "aria-label": "Checks" });
    this.node = h("div", { class: "nbd-checks" },
      h("div", { class: "nbd-checks-side" }, this.button, this.hint, this.progress, this.refusal, this.sentence, this.notes), this.list);
  }

  update(state) { this.state = state; this.apply(); }

  close(closed) { this.closed = closed; if (this.state) this.apply(); }

  apply() {
    const { blocked, stored, hint, doing, refusal, sentence, where, notes, rows } = this.state, why = this.closed || blocked;
    this.button.hidden = this.hint.hidden = stored;
    this.button.disabled = Boolean(why);
    this.button.title = why || "takes steps of your own on the side, up to 10 s; then everything is as it was";
    this.progress.hidden = !doing || Boolean(this.closed);
    for (const [node, text] of [[this.hint, hint], [this.doing, doing], [this.refusal, doing ? "" : refusal], [this.sentence, [sentence, where].filter(Boolean).join(", ")]]) { setText(node, text); node.hidden = !text; }
    const key = JSON.stringify([rows, notes]);
    if (this.shown === key) return;
    this.shown = key;
    const open = new Set([...this.list.querySelectorAll("details[open]")].map((node) => node.dataset.name));
    this.notes.replaceChildren(...notes.map((text) => h("li", {}, text)));
    this.list.replaceChildren(...rows.map((row) => checkNode(row, open.has(row.name))));
  }
}

function checkNode({ name, title, outcome, sign, why, took, measured }, open) {
  const head = [h("span", { class: "nbd-check-sign", "aria-label": outcome, title: outcome }, sign), h("b", {}, title), h("span", { class: "nbd-check-why" }, why), h("small", {}, took)];
  const body = measured.length ? h("details", { "data-name": name, ...(open ? { open: "" } : {}) }, h("summary", {}, ...head), evidenceNode(measured)) : h("div", { class: "nbd-check-head" }, ...head);
  return h("li", { class: `nbd-check nbd-check-${outcome}` }, body);
}

// What was measured, each value beside its threshold.
function evidenceNode(rows) {
  return h("table", { class: "nbd-evidence" }, h("tbody", {}, ...rows.map(({ name, value, limit, bad, parameter }) => h("tr", {},
    h("th", { scope: "row" }, name), h("td", { class: bad ? "nbd-lit" : "" }, value), h("td", { class: "nbd-mute", title: parameter ? `parameter ${parameter}` : undefined }, limit)))));
}

// --- small pictures: bars, lines, or a matrix of shades

function pictureNode({ kind, title, values, rows, columns }) {
  const drawn = { bars: barsOf, lines: linesOf, matrix: matrixOf }[kind]?.(values, rows, columns) ?? "";
  const names = kind === "matrix" ? [] : rows.map((text, place) => h("li", { class: `nbd-series-${place % 6}` }, text));
  return h("figure", { class: "nbd-figure" }, svgOf(drawn, title), h("figcaption", {}, title), names.length > 1 ? h("ul", { class: "nbd-series" }, ...names) : null);
}

const PICTURE = { width: 260, height: 96 };

function svgOf(draw, title) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: `0 0 ${PICTURE.width} ${PICTURE.height}`, role: "img", "aria-label": title, preserveAspectRatio: "none" })) svg.setAttribute(key, value);
  if (draw) for (const [tag, attributes, text] of draw) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) { const label = document.createElementNS("http://www.w3.org/2000/svg", "title"); label.textContent = text; node.append(label); }
    svg.append(node);
  }
  return svg;
}

function extremes(values) {
  const known = values.flat().filter((value) => value !== null);
  return known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
}

function barsOf(values, rows, columns) {
  const [low, high] = extremes([...values, [0]]), span = high - low || 1, count = Math.max(...values.map((row) => row.length), 1);
  const wide = PICTURE.width / count, each = wide * 0.8 / values.length, at = (value) => PICTURE.height * (1 - (value - low) / span);
  return values.flatMap((row, series) => row.flatMap((value, place) => value === null ? [] : [["rect", { class: `nbd-series-${series % 6}`, x: place * wide + wide * 0.1 + series * each, width: Math.max(each, 0.5), y: Math.min(at(value), at(0)), height: Math.max(Math.abs(at(value) - at(0)), 0.5) }, [rows[series], columns[place], number(value)].filter(Boolean).join(" · ")]]));
}

function linesOf(values, rows) {
  const [low, high] = extremes(values), span = high - low || 1, count = Math.max(...values.map((row) => row.length), 2);
  return values.map((row, series) => {
    const points = row.flatMap((value, place) => value === null ? [] : [`${(place / (count - 1) * PICTURE.width).toFixed(1)},${(2 + (PICTURE.height - 4) * (1 - (value - low) / span)).toFixed(1)}`]);
    return ["polyline", { class: `nbd-line nbd-series-${series % 6}`, points: points.join(" "), "vector-effect": "non-scaling-stroke" }, `${rows[series] ?? ""} ${number(low)} … ${number(high)}`];
  });
}

function matrixOf(values, rows, columns) {
  const [low, high] = extremes(values), span = high - low || 1, wide = PICTURE.width / Math.max(...values.map((row) => row.length), 1), tall = PICTURE.height / values.length;
  return values.flatMap((row, down) => row.map((value, across) => ["rect", { class: value === null ? "nbd-cell nbd-none" : "nbd-cell", x: across * wide, y: down * tall, width: wide, height: tall, "fill-opacity": value === null ? 1 : ((value - low) / span).toFixed(3) }, [rows[down], columns[across], value === null ? "NaN" : number(value)].filter(Boolean).join(" · ")]));
}
