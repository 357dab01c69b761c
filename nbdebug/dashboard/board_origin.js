// Where a value that is not finite came from: part of its finding's card. Names and code are the user's: text only.

function originNode(origin) {
  return h("div", { class: "nbd-origin" }, whereOf(origin), ...origin.lines.map(codeNode), ...origin.tables.map(rangesNode),
    origin.samples ? h("p", { class: "nbd-samples" }, origin.samples) : null,
    origin.advice ? h("p", { class: "nbd-advice" }, origin.advice) : null);
}

// The way to the module, then what was done there, or what was there before.
function whereOf({ phase, path, type, source, operation }) {
  const crumbs = path.map(([text, whole], place) => {
    const last = place === path.length - 1, name = whole + (last && type ? ` (${type})` : "");
    return h("li", { title: name }, h(last ? "b" : "span", last ? { class: "nbd-lit", "aria-current": "location" } : {}, text));
  });
  return h("div", { class: "nbd-origin-where" }, h("span", { class: "nbd-mute" }, phase),
    crumbs.length ? h("ol", { class: "nbd-trail" }, ...crumbs) : null,
    source ? h("code", { class: "nbd-lit" }, source) : null,
    operation ? h("code", { class: "nbd-operation", title: "the operation" }, operation) : null);
}

function codeNode({ label, where, function: name, file, code }) {
  return h("div", { class: "nbd-code" },
    h("small", { title: file }, [label, where, name].filter(Boolean).join(" · ")),
    code ? h("pre", { tabindex: "0" }, code) : null);
}

function rangesNode({ title, rows, more }) {
  const row = ({ name, shape, dtype, range, special, bad }) => h("tr", { class: bad ? "nbd-lit" : "" },
    h("th", { scope: "row", title: name }, name, h("small", {}, range)),
    h("td", { title: dtype }, shape, h("small", {}, ...special.flatMap(([text, wrong], place) => [place ? " · " : "", h("span", { class: wrong ? "nbd-lit" : "" }, text)]))));
  return h("table", { class: "nbd-ranges" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, title), h("th", { scope: "col" }, "shape"))),
    h("tbody", {}, ...rows.map(row), ...(more ? [h("tr", {}, h("th", { colspan: 2 }, more))] : [])));
}
