// What every part of the page is made with. Text is only ever set as text: no name or message can become markup.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== "") element.append(child);
  }
  return element;
}
const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
const s = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

const number = (value) => (value === null || value === undefined ? "" : value.toLocaleString("en"));
const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
const seconds = (value) => (value === null || value === undefined ? "" : `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`);

function duration(milliseconds) {
  const minutes = Math.round(Math.abs(milliseconds) / 60000);
  if (minutes < 1) return "under a minute";
  if (minutes < 90) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.round(minutes / 60)} h`;
  if (minutes < 2 * 365 * 1440) return `${number(Math.round(minutes / 1440))} days`;
  return `${number(Math.floor(minutes / (365.25 * 1440)))} years`;
}
function age(text) {
  const past = Date.now() - Date.parse(text);
  return past >= 0 ? `${duration(past)} ago` : `in ${duration(past)}`;
}
const instant = (text) => `${text.slice(0, 10)} ${text.slice(11, 16)}`;
const ages = []; // [element, instant]: said anew each minute

// An instant as the page writes it: how long ago, then when, in UTC; or how long ago alone, where room is short.
function when(text, isShort = false) {
  if (!text) return "";
  const relative = h("span", null, age(text));
  ages.push([relative, text]);
  return h("time", { datetime: text, title: `${text.replace("T", " ").replace("Z", "")} UTC` },
    relative, isShort ? "" : h("span", { class: "soft" }, ` · ${instant(text)}`));
}

// Signs that differ by shape as well as by colour.
const SHAPES = {
  good: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zm3.7 5.2-4.3 5a.8.8 0 0 1-1.2 0L4.2 9a.8.8 0 0 1 1.2-1l1.4 1.5 3.7-4.3a.8.8 0 0 1 1.2 1z",
  warning: "M7.1 1.8a1 1 0 0 1 1.8 0l6 11.4a1 1 0 0 1-.9 1.5H2a1 1 0 0 1-.9-1.5zM8 5.2c-.5 0-.9.4-.8.9l.3 3.5a.5.5 0 0 0 1 0l.3-3.5c.1-.5-.3-.9-.8-.9zm0 6a.9.9 0 1 0 0 1.8.9.9 0 0 0 0-1.8z",
  bad: "M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1zm.7 3.7-1.1 1.1L6.9 8l-2.2 2.2 1.1 1.1L8 9.1l2.2 2.2 1.1-1.1L9.1 8l2.2-2.2-1.1-1.1L8 6.9z",
  calm: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM4.5 7.2h7v1.6h-7z",
  busy: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM6.4 4.8 11.6 8l-5.2 3.2z",
};
const sign = (tone) => s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", class: "mark" },
  s("path", { d: SHAPES[tone], fill: "currentColor", "fill-rule": "evenodd" }));

const TONES = {
  fresh: "good", late: "warning", stale: "bad", "held back": "bad", "never loaded": "bad", "not watched": "calm",
  "not checked": "calm", loaded: "good", failed: "bad", missing: "bad", running: "busy", extracting: "busy",
  landed: "busy", superseded: "calm", pass: "good", warn: "warning", fail: "bad", error: "bad", "runtime error": "bad",
  "partial success": "bad", skipped: "calm", success: "good", equal: "good", healed: "good", different: "bad",
  critical: "bad", warning: "warning", passed: "good", published: "good", undone: "calm",
};
const tone = (status) => TONES[status] ?? "calm";
const pill = (status, kind = tone(status)) => (status ? h("span", { class: `pill ${kind}` }, sign(kind), status) : "");

let tables = 0;
// A table that scrolls within its own box, sorts by its headings, and shows the first rows of many.
// Columns: key, label, show(row), and number, sort(row), heading (the cell that names the row), detail (a text that has
// a line of its own below the row, where there is one).
function table(section, caption, allColumns, rows, most = 25) {
  if (!rows.length) return h("p", { class: "none", "data-none": section }, "None.");
  const body = h("tbody");
  const columns = allColumns.filter((column) => !column.detail);
  const details = allColumns.filter((column) => column.detail);
  const id = `table-${(tables += 1)}`;
  let order = rows;
  let all = rows.length <= most + 5;
  const cell = (column, row) => h(column.heading ? "th" : "td",
    { class: [column.number ? "num" : "", column.class ?? ""].join(" ").trim() || null, "data-column": column.key, scope: column.heading ? "row" : null },
    column.show ? column.show(row) : column.number ? number(row[column.key]) : row[column.key]);
  const lines = (row) => {
    const said = details.filter((column) => (column.show ? column.show(row) : row[column.key]));
    return [
      h("tr", { class: said.length ? "explained" : null }, columns.map((column) => cell(column, row))),
      said.map((column) => h("tr", { class: "detail" }, h("td", { colspan: columns.length, "data-column": column.key },
        h("div", null, h("span", { class: "hidden" }, `${column.label}: `), column.show ? column.show(row) : row[column.key])))),
    ];
  };
  const draw = () => body.replaceChildren(...(all ? order : order.slice(0, most)).map(lines).flat(Infinity));
  const value = (column, row) => (column.sort ? column.sort(row) : row[column.key]);
  const sortBy = (column, heading) => {
    const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const each of heading.parentNode.children) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    order = [...rows].sort((one, other) => {
      const [a, b] = [value(column, one), value(column, other)];
      if (a === b) return 0;
      if (a === null || a === undefined) return 1;
      if (b === null || b === undefined) return -1;
      return (a < b ? -1 : 1) * direction;
    });
    draw();
  };
  const headings = columns.map((column) => {
    const heading = h("th", { scope: "col", class: column.number ? "num" : null });
    heading.append(column.sort === null ? column.label : h("button", { onclick: () => sortBy(column, heading) }, column.label));
    return heading;
  });
  draw();
  const more = h("button", { class: "more", onclick: () => { all = true; draw(); more.remove(); } }, `Show all ${number(rows.length)}`);
  return [
    h("div", { class: "box", tabindex: "0", role: "region", "aria-label": caption },
      h("table", { id, "data-section": section }, h("caption", { class: "hidden" }, caption), h("thead", null, h("tr", null, headings)), body)),
    all ? "" : more,
  ];
}

function command(text) {
  const button = h("button", {
    "aria-label": `Copy: ${text}`,
    onclick: () => {
      navigator.clipboard?.writeText(text).then(() => { button.textContent = "Copied"; }, () => {});
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    },
  }, "Copy");
  return h("div", { class: "command" }, h("code", { tabindex: "0" }, text), button);
}

const streamName = (row) => `${row.source}.${row.stream}`;
const key = (id) => encodeURIComponent(id);
