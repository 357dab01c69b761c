// Watched samples: cards with what was foretold and a small curve of the loss, in several orders; beside them what was
// foretold against what is true, at the pass that the slider stands at.

const CURVE = { width: 112, height: 22 };
const SCATTER = 300;

class Samples {
  constructor() {
    this.hint = h("p", { class: "nbd-calm" });
    this.about = h("p", {});
    this.orders = h("div", { class: "nbd-orders", role: "radiogroup", "aria-label": "Which samples" });
    this.range = h("input", { type: "range", min: 0, step: 1, "aria-label": "Pass", oninput: () => this.moveTo(Number(this.range.value)) });
    this.where = h("output", { class: "nbd-mute" });
    this.slider = h("label", { class: "nbd-passes" }, this.range, this.where);
    this.none = h("p", { class: "nbd-calm" });
    this.list = h("ul", { class: "nbd-samples", tabindex: "0", "aria-label": "Samples" });
    this.picture = h("div", { class: "nbd-told" });
    this.body = h("div", { class: "nbd-samples-body" }, h("div", { class: "nbd-samples-main" }, this.orders, this.none, this.list), h("div", { class: "nbd-samples-side" }, this.slider, this.picture));
    this.node = h("div", { class: "nbd-samples-tab" }, this.hint, this.about, this.body);
    this.order = "worst";
    this.at = null; // the latest pass, unless another was asked for
    this.look = { number: 0, kind: "other" };
    this.buttons = new Map();
  }

  update(state) {
    const another = this.state?.number !== state.number;
    this.state = state;
    if (another) this.at = null;
    this.draw();
  }

  looks(look) {
    this.look = look;
    this.pixels = look.pixels === undefined ? null : Uint8Array.from(atob(look.pixels), (letter) => letter.charCodeAt(0));
    if (this.state) this.draw();
  }

  draw() {
    const { hint, about, loss, orders, passes } = this.state;
    setText(this.hint, hint);
    this.hint.hidden = !hint;
    this.about.hidden = this.body.hidden = Boolean(hint);
    if (hint) return;
    setText(this.about, about);
    this.about.title = [`loss: ${loss}`, ...(this.look.summary ?? [])].join("\n");
    this.drawOrders(orders);
    this.range.max = passes.length - 1;
    this.slider.hidden = passes.length < 2;
    this.moveTo(Math.min(this.at ?? passes.length - 1, passes.length - 1));
  }

  // --- which samples

  drawOrders(orders) {
    for (const { name, title, count: amount } of orders) {
      if (!this.buttons.has(name)) this.buttons.set(name, h("button", { type: "button", role: "radio", class: "nbd-order", onclick: () => this.choose(name), onkeydown: (event) => this.key(event) }));
      setText(this.buttons.get(name), `${title} ${name === "worst" ? "first" : count(amount)}`);
    }
    arrange(this.orders, orders.map(({ name }) => this.buttons.get(name)));
    for (const [name, button] of this.buttons) {
      button.setAttribute("aria-checked", String(name === this.order));
      button.tabIndex = name === this.order ? 0 : -1;
    }
  }

  choose(name) {
    this.order = name;
    this.drawOrders(this.state.orders);
    this.drawCards();
    this.list.scrollTop = 0;
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const names = [...this.buttons.keys()], to = names[(names.indexOf(this.order) + step + names.length) % names.length];
    this.choose(to);
    this.buttons.get(to).focus();
  }

  // --- at which pass

  moveTo(at) {
    const { passes, right } = this.state, last = passes.length - 1;
    this.at = at === last ? null : at;
    this.shown = at;
    if (Number(this.range.value) !== at) this.range.value = at;
    this.range.style.setProperty("--nbd-at", `${last ? (100 * at) / last : 100}%`);
    const [step, epoch] = passes[at], share = typeof right[at] === "number" ? ` · ${number(100 * right[at])} % right` : "";
    const text = `after step ${count(step)}, epoch ${count(epoch)}${share}`;
    setText(this.where, text);
    this.range.setAttribute("aria-valuetext", text);
    this.drawCards();
    this.drawPicture();
  }

  drawCards() {
    const order = this.state.orders.find(({ name }) => name === this.order);
    setText(this.none, order.hint);
    this.none.hidden = !order.hint;
    this.list.hidden = Boolean(order.hint);
    const key = JSON.stringify([this.look.number, order.places, this.shown, order.places.map((place) => this.state.cards[place])]);
    if (this.drawn === key) return;
    this.drawn = key;
    this.list.replaceChildren(...order.places.map((place) => this.card(place, this.state.cards[place])));
  }

  card(place, { index, target, told, sure, losses, right, forgotten, margin }) {
    const at = this.shown, loss = losses[at], foretold = told[at], wrong = typeof right[at] === "number" && right[at] < 0.5;
    const surely = typeof sure[at] === "number" ? ` ${Math.round(100 * sure[at])} %` : "";
    const notes = [forgotten ? `forgotten ${forgotten}×` : "", typeof margin === "number" && margin < 0 ? `margin ${number(margin)}` : ""].filter(Boolean).join(" · ");
    const line = foretold ? h("span", { class: "nbd-sample-told" }, target ? `${target} → ` : "", h("b", { class: wrong ? "nbd-lit" : "" }, foretold), h("small", {}, surely)) : h("span", { class: "nbd-sample-told" }, target);
    line.title = foretold ? `${target ? `${target} is true, ` : ""}${foretold} was foretold${surely}` : target;
    const finite = typeof loss === "number";
    return h("li", {}, this.face(place, index), h("span", {}, h("b", {}, index), h("small", { class: finite ? "" : "nbd-lit" }, ` loss ${finite ? number(loss) : loss}`)), line,
      curveNode(losses, at), notes ? h("small", { class: "nbd-mute" }, notes) : null);
  }

  // A sample as it looks: a picture, the first of its numbers, a line, ids.
  face(place, index) {
    const { number: of, kind, size, columns, rows } = this.look;
    if (of !== this.state.number) return h("div", { class: "nbd-face" });
    if (kind === "pictures" && size[0] && size[1]) {
      const [height, width] = size, each = height * width * 3, canvas = h("canvas", { width, height, role: "img", "aria-label": `sample ${index}` });
      paint(canvas, this.pixels.subarray(place * each, (place + 1) * each));
      return canvas;
    }
    const row = (rows?.[place] ?? []).filter((value) => value !== "NaN" || kind === "table");
    if (kind === "table") return h("dl", { class: "nbd-face", title: row.map((value, column) => `${columns[column]}: ${value}`).join("\n") }, ...row.slice(0, 4).flatMap((value, column) => [h("dt", {}, columns[column]), h("dd", {}, typeof value === "number" ? number(value) : value)]));
    if (kind === "ids") return h("p", { class: "nbd-face nbd-ids", title: row.join(" ") }, row.join(" "));
    if (kind === "sequence") { const face = curveNode(row, -1); face.classList.add("nbd-face"); return face; }
    return h("div", { class: "nbd-face" });
  }

  // --- what was foretold against what is true

  drawPicture() {
    const { picture } = this.state;
    this.picture.hidden = !picture;
    if (!picture) return;
    const key = JSON.stringify([picture.kind, this.shown, picture.kind === "confusion" ? [picture.names, picture.tables[this.shown]] : [picture.truth, picture.told]]);
    if (this.pictured === key) return;
    this.pictured = key;
    this.picture.replaceChildren(picture.kind === "confusion" ? confusionNode(picture, this.shown) : scatterNode(picture, this.shown));
  }
}

function svg(tag, props, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A loss over the passes, or any line where no pass ``at`` is marked; what is not finite breaks it. Losses stand above
// nothing, so that one that stays high is high.
function curveNode(values, at) {
  const { width, height } = CURVE, finite = values.filter((value) => typeof value === "number"), last = Math.max(values.length - 1, 1);
  const low = Math.min(...finite, at >= 0 || !finite.length ? 0 : Infinity), high = Math.max(...finite, finite.length ? -Infinity : 1);
  const x = (index) => 2 + ((width - 4) * index) / last, y = (value) => height - 3 - ((height - 6) * (value - low)) / (high - low || 1);
  let path = "", pen = "M";
  values.forEach((value, index) => { if (typeof value === "number") { path += `${pen}${x(index).toFixed(1)} ${y(value).toFixed(1)}`; pen = "L"; } else pen = "M"; });
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "nbd-sample-curve", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { d: path }));
  if (typeof values[at] === "number") node.append(svg("circle", { cx: x(at), cy: y(values[at]), r: 2.2 }));
  return node;
}

function confusionNode({ names, tables }, at) {
  const size = names.length, table = tables[at], sums = names.map((_, row) => table.slice(row * size, (row + 1) * size).reduce((a, b) => a + b, 0));
  const cell = (row, column) => {
    const value = table[row * size + column], share = sums[row] ? value / sums[row] : 0;
    const text = `${plural(value, "sample")} of class ${names[row]} foretold as ${names[column]}`;
    return h("td", { class: row === column ? "nbd-agree" : "nbd-differ", style: `--nbd-share:${value ? Math.round(15 + 85 * share) : 0}%`, title: text }, value ? count(value) : "");
  };
  return h("div", { class: "nbd-scroll", tabindex: "0", role: "region", "aria-label": "Confusion" }, h("table", { class: "nbd-confusion" },
    h("caption", {}, "true class by row, foretold by column"),
    h("thead", {}, h("tr", {}, h("th", {}), ...names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...names.map((name, row) => h("tr", {}, h("th", { scope: "row" }, name), ...names.map((_, column) => cell(row, column)))))));
}

// The axes are the same at each pass, so that one sees the points move.
function scatterNode({ truth, told, note }, at) {
  const finite = [truth, ...told].flat().filter((value) => typeof value === "number"), low = Math.min(...finite), high = Math.max(...finite);
  const pad = (high - low || 1) * 0.04, span = high - low + 2 * pad, place = (value) => (SCATTER * (value - low + pad)) / span;
  const node = svg("svg", { viewBox: `0 0 ${SCATTER} ${SCATTER}`, class: "nbd-scatter", role: "img", "aria-label": "what was foretold over what is true" },
    svg("line", { x1: 0, y1: SCATTER, x2: SCATTER, y2: 0 }));
  truth.forEach((value, index) => {
    const foretold = told[at][index];
    if (typeof value === "number" && typeof foretold === "number") node.append(svg("circle", { cx: place(value).toFixed(1), cy: (SCATTER - place(foretold)).toFixed(1), r: 3 }));
  });
  return h("figure", { class: "nbd-scattered" }, node, h("figcaption", {}, `foretold (up) over true (right), ${number(low)} to ${number(high)}${note ? `; ${note}` : ""}`));
}
