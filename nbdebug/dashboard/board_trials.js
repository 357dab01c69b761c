// Remedies on a finding's card: what trying one takes is said first; then its progress, its verdict, and Apply.

const SENT_MS = 8000;

class Remedies {
  // One at a time: what was tried and did not help is a line, then the one to try now; the others are folded away.
  constructor(remedies, cause, command) {
    this.cause = cause;
    this.command = command;
    this.asked = null; // the rung whose price was asked for
    this.sent = null; // the rung that was sent off, until the kernel says something of it
    this.rows = remedies.map((remedy) => this.row(remedy));
    const failed = (row) => Boolean(row.proof && !row.proof.helped), open = this.rows.filter((row) => !failed(row));
    const now = open.find(({ proof }) => proof?.helped) ?? open[0], rest = open.filter((row) => row !== now);
    this.next = open.length < this.rows.length && now && !now.proof ? now.rung : -1;
    const list = (rows) => h("ol", { class: "nbd-remedies", "aria-label": "Remedies" }, ...rows.map(({ node }) => node));
    for (const row of this.rows.filter(failed)) row.node.replaceChildren(foldOf(`${cause} tried ${row.rung}`, [h("span", { class: "nbd-tried" }, row.text), " ", h("i", {}, row.proof.said.toLowerCase())], ...row.node.childNodes));
    this.folds = rest.length ? foldOf(`${cause} others`, [plural(rest.length, "other way")], list(rest)) : null;
    this.node = h("div", {}, list([...this.rows.filter(failed), ...(now ? [now] : [])]), this.folds);
  }

  row({ text, code, rung, proof }) {
    const row = { rung, text, proof, node: h("li", {}, proof && !proof.helped ? "" : text) };
    if (rung >= 0) {
      const act = (name) => guarded(() => this.send(name, rung));
      row.try = h("button", { type: "button", "aria-label": `Try it: ${text}`, onclick: guarded(() => this.ask(rung)) }, "Try it");
      row.apply = h("button", { type: "button", "aria-label": `Apply: ${text}`, class: proof?.helped ? "nbd-main" : "", onclick: act("apply_remedy") }, "Apply");
      row.price = h("span", { class: "nbd-price" });
      row.start = h("button", { type: "button", class: "nbd-main", "aria-label": `Start trying: ${text}`, onclick: act("try_remedy") }, "Start");
      row.leave = h("button", { type: "button", "aria-label": `Don't try: ${text}`, onclick: guarded(() => this.ask(null)) }, "Cancel");
      row.buttons = h("span", { class: "nbd-remedy-buttons" }, row.try, row.apply);
      row.question = h("div", { class: "nbd-ask", hidden: true }, row.price, h("span", { class: "nbd-remedy-buttons" }, row.start, row.leave));
      row.doing = h("small", { role: "status" });
      row.fill = h("span", { class: "nbd-fill" });
      row.end = h("button", { type: "button", "aria-label": `End trying: ${text}`, onclick: guarded(() => this.command("pause")) }, "Cancel");
      row.progress = h("div", { class: "nbd-ask nbd-trying", hidden: true }, h("span", { class: "nbd-share", "aria-hidden": "true" }, row.fill), row.end, row.doing);
      row.refusal = h("p", { class: "nbd-refused", role: "status", hidden: true });
      row.node.append(row.buttons, row.question, row.progress, row.refusal);
      if (proof) row.node.append(proofNode(proof));
    }
    if (code) row.node.append(copyable(code));
    return row;
  }

  // Of no rung: the question is taken back.
  ask(rung) {
    const before = this.asked;
    this.asked = rung;
    this.apply();
    const row = this.rows.find((each) => each.rung === (rung ?? before));
    (rung === null ? row?.try : row?.start)?.focus({ preventScroll: true });
  }

  send(name, rung) {
    this.asked = null;
    if (name === "try_remedy") { this.sent = rung; this.sentAt = Date.now(); setTimeout(() => this.apply(), SENT_MS + 50); }
    this.command(name, { cause: this.cause, rung });
    this.apply();
  }

  update(state, closed) {
    this.state = state;
    this.closed = closed;
    this.apply();
  }

  apply() {
    if (!this.state) return;
    const { blocked, costs, trial, refusals } = this.state, why = this.closed || blocked;
    const under = trial?.cause === this.cause ? trial.rung : -1;
    const refused = (rung) => refusals[`${this.cause} ${rung}`] ?? "";
    if (this.sent !== null && (under === this.sent || Date.now() - this.sentAt > SENT_MS || (refused(this.sent) && Date.now() - this.sentAt > 1000))) this.sent = null;
    for (const row of this.rows) {
      if (row.rung < 0) continue;
      const busy = under === row.rung || this.sent === row.rung, asking = this.asked === row.rung && !busy && !why;
      row.buttons.hidden = busy || asking;
      row.question.hidden = !asking;
      row.progress.hidden = !busy;
      row.try.disabled = row.apply.disabled = row.start.disabled = Boolean(why) || busy;
      row.try.title = why || `${costs[this.cause] ?? ""}: on a branch with it and without; the model stays where it is`.replace(/^: /, "");
      row.apply.title = why || (row.proof?.helped && !row.proof.gone ? "go on from the branch that has it" : "from the next step on");
      row.apply.hidden = Boolean(row.proof?.applied);
      setText(row.try, row.rung === this.next ? "Try the next" : row.proof ? "Again" : "Try it");
      row.try.classList.toggle("nbd-main", row.rung === this.next);
      setText(row.price, `${costs[this.cause] ?? "on a branch, with it and without"}. The model stays where it is.`);
      setText(row.doing, (under === row.rung && trial.doing) || "starting …");
      row.fill.style.width = `${100 * (under === row.rung ? trial.share : 0)}%`;
      row.end.disabled = Boolean(this.closed);
      if (busy && row.node.closest("details:not([data-name$=symptoms])")) row.node.closest("details").open = true;
      const text = busy ? "" : refused(row.rung);
      setText(row.refusal, text);
      row.refusal.hidden = !text;
    }
  }
}

function foldOf(name, head, ...inside) {
  return h("details", { class: "nbd-ways", "data-name": name }, h("summary", {}, ...head), ...inside);
}

// What came of it: the verdict in words, and both curves.
function proofNode({ verdict, said, numbers, sentence, picture, applied }) {
  const tone = { better: "nbd-better", worse: "nbd-worse" }[verdict] ?? "nbd-level";
  return h("div", { class: `nbd-proof ${tone}` },
    h("p", { title: sentence }, h("b", {}, said), h("span", {}, numbers)),
    picture ? pictureNode(picture) : null,
    applied ? h("p", { class: "nbd-applied" }, "Applied: the model goes on from that branch.") : null);
}

// Code to take along: the whole of it, by a press.
function copyable(code) {
  const button = h("button", { type: "button", class: "nbd-copy", "aria-label": `Copy: ${code.split("\n")[0]}`, title: "copy", onclick: () => copy() }, icon("M6 5.5h7.5v8H6zM3.5 10.5h-1v-8H10v1"));
  async function copy() {
    const done = await copied(code);
    button.classList.toggle("nbd-done", done);
    button.title = done ? "copied" : "the page may not write to the clipboard: select the code";
    setTimeout(() => { button.classList.remove("nbd-done"); button.title = "copy"; }, 1500);
  }
  return h("div", { class: "nbd-copyable" }, h("pre", { tabindex: "0" }, code), button);
}

// Pages without a secure origin have no clipboard of their own: then as one did before there was one.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "nbd-probe" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
