// What the user added of their own: knobs, buttons, and what their functions gave at the end of an epoch.

const OWN_STEPS = 1000;
const NOTHING_OWN = "debugger.knob(), debugger.button() and debugger.on_epoch_end() put what is yours here.";

class OwnPart {
  constructor(command) {
    this.command = command;
    this.rows = new Map();
    this.pressers = new Map();
    this.cards = new Map();
    this.hint = h("p", { class: "nbd-calm" }, NOTHING_OWN);
    this.knobs = h("div", { class: "nbd-own-knobs" });
    this.buttons = h("div", { class: "nbd-buttons" });
    this.answer = new Answer();
    this.node = part("Yours", [], this.hint, this.knobs, this.buttons, this.answer.node);
    this.panels = h("div", { class: "nbd-own-panels", hidden: true });
  }

  update({ knobs, buttons, answer }) {
    this.state = { knobs, buttons };
    const rows = new Map(knobs.map((knob) => [knob.name, this.rows.get(knob.name) ?? this.row(knob.name)]));
    this.rows = rows;
    for (const knob of knobs) this.fill(rows.get(knob.name), knob);
    arrange(this.knobs, knobs.map(({ name }) => rows.get(name).node));
    const press = (name) => this.pressers.get(name) ?? h("button", { type: "button", onclick: guarded(() => this.command("press", { name })) }, name);
    this.pressers = new Map(buttons.map((name) => [name, press(name)]));
    arrange(this.buttons, [...this.pressers.values()]);
    this.answer.update(answer);
    this.tell();
  }

  tell() { this.hint.hidden = Boolean(this.rows.size || this.pressers.size || this.cards.size); }

  row(name) {
    const send = (value) => this.command("set_own", { name, value }), sendSoon = throttle(send);
    const row = { note: h("small") };
    row.field = new NumberField(`Type ${name}`, { ask: (value) => { send(value); row.slide(value); }, changed: () => setText(row.note, row.field.wrong ? `has to be ${row.field.wrong}` : "") });
    row.slider = h("input", { type: "range", min: 0, max: OWN_STEPS, step: 1, "aria-label": name, onblur: () => setTimeout(() => this.settle(row), 0), oninput: () => {
      const value = valueAt(Number(row.slider.value), row.knob);
      row.slider.nbdTouched = Date.now();
      setTimeout(() => this.settle(row), IN_USE_MS + 50);
      row.field.input.value = row.field.typed = asText(value);
      row.field.touch();
      row.field.check();
      row.slide(value);
      sendSoon(value);
    } });
    row.slide = (value) => {
      row.slider.value = String(positionOf(value, row.knob));
      row.slider.setAttribute("aria-valuetext", asText(value));
      fill(row.slider);
    };
    row.node = h("div", { class: "nbd-own-knob" }, h("div", { class: "nbd-label" }, h("span", {}, name), row.field.input), row.slider, row.note);
    return row;
  }

  fill(row, knob) {
    row.knob = knob;
    row.field.range = { low: knob.low, high: knob.high, low_open: false, high_open: false, whole: false };
    row.field.put(knob.value);
    this.settle(row);
  }

  settle({ slider, slide, knob, field }) {
    const held = slider.getRootNode().activeElement === slider || touchedLately(slider) || field.inUse;
    if (!held) slide(knob.value);
  }

  // Cards; a picture's address is given back once it is not shown any more.
  show(panels) {
    const cards = new Map(panels.map((panel) => [JSON.stringify([panel.name, panel.where, panel.text, panel.png]), panel]));
    for (const [key, { url }] of this.cards) if (!cards.has(key) && url) URL.revokeObjectURL(url);
    this.cards = new Map([...cards].map(([key, panel]) => [key, this.cards.get(key) ?? ownCard(panel)]));
    arrange(this.panels, [...this.cards.values()].map(({ node }) => node));
    this.panels.hidden = !panels.length;
    this.tell();
  }
}

function ownCard({ name, where, text, png }) {
  const caption = h("figcaption", {}, h("b", {}, name), h("small", {}, where));
  if (!png) return { url: "", node: h("figure", { class: "nbd-own-panel" }, caption, h("pre", { tabindex: "0" }, text)) };
  const url = URL.createObjectURL(new Blob([Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0))], { type: "image/png" }));
  const image = h("img", { src: url, alt: `${name}, ${where}`, onerror: () => image.replaceWith(h("p", { class: "nbd-calm" }, "this picture can't be shown")) });
  return { url, node: h("figure", { class: "nbd-own-panel" }, caption, image) };
}

function valueAt(place, { low, high, log }) {
  if (place <= 0 || place >= OWN_STEPS) return place <= 0 ? low : high;
  const share = place / OWN_STEPS;
  return Number((log ? low * (high / low) ** share : low + (high - low) * share).toPrecision(log ? 3 : 4));
}

function positionOf(value, { low, high, log }) {
  const share = high > low ? log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low) : 0;
  return Math.round(OWN_STEPS * Math.min(1, Math.max(0, Number.isFinite(share) ? share : 0)));
}
