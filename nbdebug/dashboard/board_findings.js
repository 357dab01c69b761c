// The cards of findings: the first few at once, the rest folded; what one explains within it; what is gone below.

class Findings {
  constructor(command, lit) {
    this.command = command;
    this.lit = lit;
    this.closed = "";
    this.summary = h("span", { class: "nbd-read" });
    this.cards = h("div", { class: "nbd-cards" });
    this.calm = h("p", { class: "nbd-calm" }, "Nothing to report.");
    this.rest = new Fold("nbd-more-cards");
    this.gone = new Fold("nbd-gone-cards");
    this.node = h("section", { class: "nbd-panel nbd-findings", "aria-label": "Findings" },
      h("header", {}, h("h3", {}, "Findings"), this.summary), this.cards);
    this.known = new Map();
  }

  update(state, closed) {
    const { summary, first, cards, gone } = this.state = state;
    setText(this.summary, summary);
    const before = this.known;
    this.known = new Map(cards.map((each) => [each.key, before.get(each.key) ?? new Card(this.command, this.lit)]));
    cards.forEach((each) => this.known.get(each.key).update(each));
    const nodes = [...this.known.values()].map(({ node }) => node), rest = nodes.slice(first);
    this.rest.update(`${rest.length} more`, rest);
    const mended = gone.filter(({ proof }) => proof).length; // just now, by a press here: it does not vanish from sight
    if (mended > (this.mended ?? mended)) this.gone.node.open = true;
    this.mended = mended;
    this.gone.update(`${gone.length} gone`, gone.map((each) => goneNode(each, this.lit)), JSON.stringify(gone));
    arrange(this.cards, [...(nodes.length ? nodes.slice(0, first) : [this.calm]), ...(rest.length ? [this.rest.node] : []), ...(gone.length ? [this.gone.node] : [])]);
    this.lit.update([...cards.flatMap((each) => [each, ...each.symptoms]), ...gone]);
    this.mark();
    this.close(closed);
  }

  close(closed) {
    this.closed = closed;
    if (this.state) for (const card of this.known.values()) card.follow(this.state, closed);
  }

  // Which of them is lit.
  mark() {
    for (const button of this.cards.querySelectorAll(".nbd-select")) {
      const on = button.dataset.key === this.lit.key;
      button.setAttribute("aria-pressed", String(on));
      button.closest(".nbd-card, .nbd-gone").classList.toggle("nbd-shining", on);
    }
  }
}

// What is folded away; it stays open while it changes.
class Fold {
  constructor(look) {
    this.head = h("summary");
    this.body = h("div", { class: "nbd-fold" });
    this.node = h("details", { class: look }, this.head, this.body);
  }

  update(text, nodes, key = null) {
    setText(this.head, text);
    if (key !== null && key === this.key) return;
    this.key = key;
    arrange(this.body, nodes);
  }
}

function selectNode(card, lit, text) {
  return h("button", { type: "button", class: "nbd-select", "aria-pressed": "false", "data-key": card.key, title: "light its steps and layers in the charts", onclick: (event) => { event.stopPropagation(); lit.toggle(card); } }, h("b", {}, text));
}

function goneNode(card, lit) {
  return h("div", { class: "nbd-gone", onclick: () => lit.toggle(card) }, selectNode(card, lit, card.title), ...[card.where, card.mended].filter(Boolean).map((text) => h("small", {}, text)), card.proof ? proofNode(card.proof) : null);
}

class Card {
  constructor(command, lit) {
    this.command = command;
    this.lit = lit;
    this.node = h("article", { onclick: (event) => this.press(event) });
    this.symptoms = new Map();
  }

  // A press on what does nothing by itself lights the card; one that marks text does not.
  press(event) {
    if (event.target.closest("button, summary, a, pre, input, .nbd-card") !== this.node || !globalThis.getSelection().isCollapsed) return;
    event.stopPropagation();
    this.lit.toggle(this.state);
  }

  update(state) {
    const key = JSON.stringify(state);
    if (key === this.shown) return;
    this.shown = key;
    this.state = state;
    const open = new Set([...this.node.querySelectorAll("details[open]")].map((each) => each.dataset.name)), focused = this.focused();
    this.fill(state);
    for (const each of this.node.querySelectorAll("details")) if (open.has(each.dataset.name)) each.open = true;
    if (focused) this.node.querySelector(`[aria-label="${CSS.escape(focused)}"], [data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  focused() {
    const at = this.node.getRootNode().activeElement;
    return at && at !== this.node && this.node.contains(at) ? at.getAttribute("aria-label") ?? at.dataset.key ?? "" : "";
  }

  fill({ key, severity, title, why, detail, where, origin, layers, evidence, pictures, remedies, code, source, sure, symptoms, cause }) {
    const more = evidence.length || pictures.length || source;
    const folded = (name, text, ...inside) => h("details", { "data-name": `${key} ${name}` }, h("summary", {}, text), ...inside);
    this.remedies = remedies.length ? new Remedies(remedies, cause, this.command) : null;
    this.symptoms = symptoms.map((each) => { const card = new Card(this.command, this.lit); card.update(each); return card; });
    this.node.className = `nbd-card nbd-${severity}`;
    this.node.replaceChildren(...[
      h("div", { class: "nbd-card-head" }, selectNode(this.state, this.lit, title), h("span", { class: "nbd-severity" }, severity)),
      h("p", {}, why), h("p", { class: "nbd-where" }, [sure, where, layers].filter(Boolean).join(" · ")), origin ? originNode(origin) : null,
      code ? codeNode({ ...code, label: "", function: "" }) : null,
      this.remedies?.node ?? null,
      symptoms.length ? folded("symptoms", `Explains: ${symptoms.map((each) => each.title).join(", ")}`, h("div", { class: "nbd-fold" }, ...this.symptoms.map(({ node }) => node))) : null,
      more ? folded("evidence", "Evidence", ...pictures.map(pictureNode), evidence.length ? evidenceNode(evidence) : null, source ? h("p", { class: "nbd-folded" }, source) : null) : null,
      detail ? folded("detail", "Detail", h("pre", { tabindex: "0" }, detail)) : null].filter(Boolean));
  }

  // What is said beside the cards: prices, progress.
  follow(state, closed) {
    this.remedies?.update(state, closed);
    for (const each of this.symptoms) each.follow(state, closed);
  }
}
