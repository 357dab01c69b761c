// The tab "Change": optimizer, schedule, layers, and what the user added of their own.

class Change {
  constructor(command) {
    this.state = null;
    this.closed = "";
    this.optimizer = new OptimizerPart(command);
    this.schedule = new SchedulePart(command);
    this.layers = new LayersPart(command);
    this.average = new AveragePart(command);
    this.more = new MorePart(command);
    this.own = new OwnPart(command);
    this.schedule.node.append(this.average.node);
    this.hint = h("p", { class: "nbd-calm", hidden: true });
    this.parts = h("fieldset", { class: "nbd-parts" }, this.optimizer.node, this.schedule.node, this.layers.node, this.more.node, this.own.node);
    this.node = h("div", { class: "nbd-change" }, this.hint, this.parts, this.own.panels);
  }

  update(state) {
    this.state = state;
    this.optimizer.update(state.optimizer, state.groups);
    this.schedule.update(state.schedule);
    this.layers.update(state.layers);
    this.average.update(state.average, state.average_answer);
    this.more.update(state.more, state.layers.names);
    this.own.update(state.own);
    this.apply();
  }

  close(reason) { this.closed = reason; this.apply(); }

  apply() {
    const { blocked = "", stored = false } = this.state ?? {}, why = this.closed || blocked;
    this.parts.disabled = Boolean(why);
    this.parts.title = why;
    this.parts.hidden = stored;
    this.hint.hidden = !why;
    setText(this.hint, why);
  }
}
