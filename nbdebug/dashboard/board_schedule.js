// The learning-rate schedule: a form, and the rates that it will give, drawn before anything is asked for.

const SVG = "http://www.w3.org/2000/svg";
const MOST_STAIRS = 240;
const FEW_EPOCHS = 5; // too few for a curve
const SHORT = { warmup_steps: "warm-up", warmup_start: "starts at" };

// Which share of the base rate is in force, by kind, at the k-th position after the warm-up: as in records/schedules.py.
const SHAPES = {
  none: () => 1,
  constant: () => 1,
  plateau: () => 1,
  step: (k, { every, gamma }) => gamma ** Math.floor(k / every),
  exponential: (k, { gamma }) => gamma ** k,
  cosine: (k, { total, warmup_steps: warm, floor }) => cosineBetween(1, floor, Math.min(k / (total - warm), 1)),
  one_cycle: (k, { total, peak_at: peakAt, start_divisor: start, final_divisor: final }) => {
    const peak = Math.max(peakAt * total - 1, 0), end = total - 1, first = 1 / start;
    if (k < peak) return cosineBetween(first, 1, k / peak);
    return cosineBetween(1, first / final, end > peak ? Math.min((k - peak) / (end - peak), 1) : 1);
  },
  cyclic: (k, { every, floor, gamma }) => {
    const cycle = Math.floor(k / every), x = (2 * (k % every)) / every;
    return floor + (1 - floor) * (x <= 1 ? x : 2 - x) * gamma ** cycle;
  },
};

// How many positions show the shape.
const SPANS = {
  step: ({ every }) => 4 * every,
  cyclic: ({ every }) => 3 * every,
  exponential: ({ gamma }) => (gamma < 1 ? Math.min(1000, Math.max(4, Math.ceil(Math.log(0.05) / Math.log(gamma)))) : 10),
};

function cosineBetween(start, end, share) {
  return end + ((start - end) * (1 + Math.cos(Math.PI * share))) / 2;
}

function factorAt(kind, options, position) {
  const { warmup_steps: warm = 0, warmup_start: start = 0.01 } = options;
  return position < warm ? start + ((1 - start) * position) / warm : SHAPES[kind](position - warm, { ...options, warmup_steps: warm });
}

// Positions, at most so many, and the factor at each.
function factors(kind, options) {
  const warm = options.warmup_steps ?? 0, span = options.total ?? warm + (SPANS[kind]?.(options) ?? Math.max(10, warm));
  const amount = Math.min(span, MOST_STAIRS), places = Array.from({ length: amount }, (_, at) => Math.floor((at * span) / amount));
  return { span, places, values: places.map((place) => factorAt(kind, options, place)) };
}

class SchedulePart {
  constructor(command) {
    this.command = command;
    this.kept = new Map();
    this.fields = new Map();
    this.now = h("span", { class: "nbd-read" });
    this.kind = h("select", { "aria-label": "Kind of schedule", onchange: () => this.choose() });
    this.interval = h("select", { "aria-label": "A position is", onchange: () => { this.kept.delete("total"); this.choose(); } }, h("option", { value: "epoch" }, "each epoch"), h("option", { value: "batch" }, "each batch"));
    this.list = h("div", { class: "nbd-fields" });
    this.line = document.createElementNS(SVG, "path");
    this.svg = document.createElementNS(SVG, "svg");
    for (const [name, value] of Object.entries({ viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" })) this.svg.setAttribute(name, value);
    this.svg.append(this.line);
    this.top = h("span");
    this.bottom = h("span");
    this.picture = h("div", { class: "nbd-preview" }, h("div", { class: "nbd-preview-ends", "aria-hidden": "true" }, this.top, this.bottom), this.svg);
    this.note = h("small");
    this.button = h("button", { type: "button", "aria-label": "Apply the schedule", onclick: guarded(() => this.ask()) }, "Apply");
    this.answer = new Answer();
    this.node = part("Schedule", [this.now], h("div", { class: "nbd-act-row nbd-three" }, this.kind, this.interval, this.button), this.list, this.picture, this.note, this.answer.node);
  }

  update(state) {
    const first = !this.state, lengths = JSON.stringify(state.lengths);
    this.state = state;
    setText(this.now, state.text ? `now ${state.text}` : "now none");
    this.now.title = this.now.textContent;
    setOptions(this.kind, state.kinds.map(({ name }) => [name, spaced(name)]));
    if (first) { this.kind.value = "cosine"; this.interval.value = state.lengths.epoch < FEW_EPOCHS && state.lengths.batch > state.lengths.epoch ? "batch" : "epoch"; }
    if (first || (lengths !== this.lengths && !this.fields.get("total")?.field.inUse)) this.choose();
    this.lengths = lengths;
    this.answer.update(state.answer);
    this.preview();
  }

  // The fields of a kind; what was typed for it is kept.
  choose() {
    if (!this.state) return;
    const kind = this.chosen(), { warm_up: warmUp, lengths, total_title: title } = this.state;
    const total = { name: "total", usual: lengths[this.interval.value], low: kind.name === "one_cycle" ? 2 : 1, high: null, low_open: false, high_open: false, whole: true, title };
    const wanted = [...(kind.total ? [total] : []), ...kind.parameters, ...(kind.warm_up ? warmUp : [])];
    this.fields = new Map(wanted.map((each) => [each.name, this.made(kind.name, each)]));
    this.list.replaceChildren(...[...this.fields.values()].map(({ node }) => node));
    this.interval.hidden = kind.name === "none";
    this.preview();
  }

  chosen() { return this.state.kinds.find(({ name }) => name === this.kind.value); }

  made(kind, parameter) {
    const label = spaced(parameter.name).replace("warmup", "warm-up"), key = parameter.name === "total" ? "total" : `${kind} ${parameter.name}`;
    const field = new NumberField(label, { changed: () => { this.kept.set(key, field.input.value); this.preview(); }, enter: () => this.ask() });
    field.range = parameter;
    field.input.value = this.kept.get(key) ?? asText(parameter.usual);
    return { field, node: h("label", { class: "nbd-field", title: parameter.title }, h("span", {}, SHORT[parameter.name] ?? label), field.input) };
  }

  // What is in the form, and what can't be with it, in words.
  read() {
    const options = {}, wrong = [];
    for (const [name, { field }] of this.fields) {
      const mistake = outOfRange(field.range, field.value);
      field.input.setAttribute("aria-invalid", String(Boolean(mistake)));
      if (mistake) wrong.push(`${spaced(name)} has to be ${mistake}`);
      options[name] = field.value;
    }
    if (!wrong.length && "total" in options && (options.warmup_steps ?? 0) >= options.total) {
      this.fields.get("warmup_steps").field.input.setAttribute("aria-invalid", "true");
      wrong.push(`warmup steps have to be fewer than the total of ${count(options.total)}`);
    }
    return { options, wrong };
  }

  ask() {
    const { options, wrong } = this.read(), kind = this.kind.value;
    if (wrong.length || this.button.matches(":disabled")) return;
    this.command("set_schedule", { kind, options: kind === "none" ? {} : { interval: this.interval.value, ...options } });
  }

  preview() {
    const { options, wrong } = this.read(), kind = this.kind.value, base = this.state.rate;
    this.button.disabled = wrong.length > 0;
    this.note.classList.toggle("nbd-refused", wrong.length > 0);
    this.picture.classList.toggle("nbd-idle", wrong.length > 0);
    if (wrong.length) { setText(this.note, wrong.join("; ")); return; }
    const { span, places, values } = factors(kind, options), shown = (factor) => (base === null ? `× ${number(factor)}` : rate(base * factor));
    const y = (factor) => (100 - 92 * factor).toFixed(2), x = (place) => ((100 * place) / span).toFixed(2);
    this.line.setAttribute("d", `M0 ${y(values[0])}${values.map((factor, at) => `V${y(factor)}H${x(places[at + 1] ?? span)}`).join("")}`);
    setText(this.top, shown(1));
    setText(this.bottom, base === null ? "× 0" : "0");
    const length = plural(span, this.interval.value).replace("batchs", "batches"), highest = Math.max(...values), last = values.at(-1);
    const over = highest > Math.max(values[0], last) * (1 + 1e-9) ? ` over ${shown(highest)}` : "";
    const flat = values.every((value) => value === values[0]);
    const course = flat ? `${shown(values[0])} throughout` : `${shown(values[0])}${over} to ${shown(last)} in ${length}`;
    const also = { none: "; no schedule", plateau: `, then × ${asText(options.gamma ?? 1)} whenever the loss stays`, }[kind] ?? "";
    setText(this.note, course + also);
    this.svg.setAttribute("aria-label", `Learning rate: ${course}${also}`);
  }
}
