// The batch that a stopped step works on: pictures as thumbnails, else rows, those with the highest loss first.

class Batch {
  constructor() {
    this.about = h("div", { class: "nbd-batch-about" });
    this.body = h("div", { class: "nbd-batch-body" });
    this.hint = h("p", { class: "nbd-calm" });
    this.node = h("div", { class: "nbd-batch" }, this.hint, this.about, this.body);
  }

  update({ hint, kind, summary = [], note = "", samples = [], ...contents }) {
    setText(this.hint, hint);
    this.hint.hidden = !hint;
    this.about.hidden = this.body.hidden = Boolean(hint);
    this.about.replaceChildren(...summary.map((text) => h("p", {}, text)), ...(note ? [h("p", { class: "nbd-mute" }, note)] : []));
    if (contents.pixels !== undefined) this.body.replaceChildren(thumbnails(samples, contents));
    else this.body.replaceChildren(...(samples.length ? [sampleTable(samples, contents, kind)] : []));
  }
}

function thumbnails(samples, { pixels, size: [height, width] }) {
  const bytes = Uint8Array.from(atob(pixels), (letter) => letter.charCodeAt(0)), each = height * width * 3;
  return h("ul", { class: "nbd-thumbs", tabindex: "0", "aria-label": "Samples, highest loss first" }, ...samples.map(({ index, target, loss, bad }, place) => {
    const canvas = h("canvas", { width, height, role: "img", "aria-label": `sample ${index}` });
    if (height && width) paint(canvas, bytes.subarray(place * each, (place + 1) * each));
    return h("li", { class: bad ? "nbd-bad" : "" }, canvas, h("span", { title: target }, h("b", {}, index), target ? ` ${target}` : ""), h("small", {}, loss ? `loss ${loss}` : ""));
  }));
}

function paint(canvas, bytes) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  for (let from = 0, to = 0; from < bytes.length; from += 3, to += 4) {
    image.data.set(bytes.subarray(from, from + 3), to);
    image.data[to + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  canvas.classList.toggle("nbd-coarse", Math.max(canvas.width, canvas.height) < 96); // few pixels: each is seen
}

// Losses and targets only where there are any.
function sampleTable(samples, { columns = [], rows = [] }, kind) {
  const sequence = kind === "sequence" && rows.length > 0;
  const shown = [["loss", "loss"], ["target", "target"]].filter(([key]) => samples.some((sample) => sample[key]));
  const heads = ["sample", ...shown.map(([title]) => title), ...columns, ...(sequence ? ["ids"] : [])];
  const odd = (text) => text === "NaN" || text === "inf" || text === "-inf";
  const cell = (text, look = "") => h("td", { class: `${look}${odd(text) ? " nbd-lit" : ""}`, title: text.length > 12 && !look ? text : undefined }, text);
  return h("div", { class: "nbd-scroll", tabindex: "0", role: "region", "aria-label": "Samples of the batch" }, h("table", { class: `nbd-batch-table${sequence ? " nbd-sequences" : ""}` },
    h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col", title: text }, text)))),
    h("tbody", {}, ...samples.map((sample, place) => h("tr", { class: sample.bad ? "nbd-bad" : "" }, h("th", { scope: "row" }, sample.index),
      ...shown.map(([key]) => cell(sample[key])), ...(rows[place] ?? []).map((text) => cell(text, sequence ? "nbd-ids" : "")))))));
}
