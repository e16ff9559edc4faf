// Lineage that can be walked: from a dashboard's or a mart's column back to the field of the source, and on from there.
// A place is [node, column]: the number of a node, and a column of it; null for its rows, undefined for the node as a whole.

const graph = data.lineage;
const KINDS = { passthrough: "as it is", expression: "computed", aggregate: "aggregated" };
const WORDS = { stream: "source stream", source: "raw table", model: "model", snapshot: "snapshot", seed: "seed", exposure: "dashboard", relation: "outside the project" };
const MOST_BOXES = 80;
const [BOX, GAP, ROW, HEAD] = [204, 48, 20, 27];

const byId = new Map((graph?.nodes ?? []).map((node, index) => [node.id, index]));
const columnsOf = (index) => graph.nodes[index].columns ?? [];
const findColumn = (index, name) => columnsOf(index).find((column) => column[0] === name);
const title = (node) => (node.kind === "source" ? node.relation : node.label ?? node.name);
const href = (index, column) => `#lineage/${key(graph.nodes[index].id)}${column === undefined ? "" : `/${column === null ? "*" : `=${key(column)}`}`}`;

function origins([index, column]) {
  const node = graph.nodes[index];
  if (column === null) return (node.rows_of ?? []).map((parent) => [parent, null, "passthrough"]);
  return findColumn(index, column)?.[2] ?? [];
}

let uses = null; // what each column is used for: made when it is first asked for
function usesOf([index, column]) {
  if (!uses) {
    uses = new Map();
    const note = (parent, name, use) => {
      const id = `${parent}/${name === null ? "" : `=${name}`}`;
      uses.set(id, [...(uses.get(id) ?? []), use]);
    };
    graph.nodes.forEach((node, child) => {
      for (const [name, , from] of node.columns ?? []) for (const [parent, origin, kind] of from ?? []) note(parent, origin, [child, name, kind]);
      for (const parent of node.rows_of ?? []) note(parent, null, [child, null, "passthrough"]);
    });
  }
  return uses.get(`${index}/${column === null ? "" : `=${column}`}`) ?? [];
}

const parentsOf = (index) => graph.edges.filter(([, child]) => child === index).map(([parent]) => parent);
const childrenOf = (index) => graph.edges.filter(([parent]) => parent === index).map(([, child]) => child);

// Everything in one direction of a place, with the links between.
function walk(start, next) {
  const id = ([index, column]) => `${index}/${column}`;
  const seen = new Map([[id(start), start]]);
  const links = [];
  const queue = [start];
  while (queue.length) {
    const place = queue.shift();
    for (const [index, column, kind] of next(place)) {
      const found = [index, column];
      links.push([place, found, kind]);
      if (!seen.has(id(found))) {
        seen.set(id(found), found);
        queue.push(found);
      }
    }
  }
  return { places: [...seen.values()], links };
}

function around(index, column) {
  if (column === undefined) {
    const asPlaces = (numbers) => numbers.map((each) => [each, undefined, "passthrough"]);
    const up = walk([index, undefined], ([each]) => asPlaces(parentsOf(each)));
    const down = walk([index, undefined], ([each]) => asPlaces(childrenOf(each)));
    return { places: [...up.places, ...down.places.slice(1)], links: [...up.links.map(([child, parent, kind]) => [parent, child, kind]), ...down.links] };
  }
  const up = walk([index, column], origins);
  const down = walk([index, column], usesOf);
  return { places: [...up.places, ...down.places.slice(1)], links: [...up.links.map(([child, parent, kind]) => [parent, child, kind]), ...down.links] };
}

// Tables side by side in the order in which they are made, with the columns that matter here.
function diagram(index, column) {
  const { places, links } = around(index, column);
  const boxes = new Map();
  for (const [each, name] of places) {
    if (!boxes.has(each)) boxes.set(each, { index: each, rows: [], layer: 0, y: 0 });
    if (name !== undefined) boxes.get(each).rows.push(name);
  }
  if (boxes.size > MOST_BOXES) return h("p", { class: "none" }, `${plural(boxes.size, "table")} are involved: too many to draw. Choose a column, or a table nearer to one end; the lists below have the next ones.`);
  const order = [...boxes.keys()].sort((a, b) => a - b); // parents have lower numbers than what is made of them
  const between = new Set(links.map(([from, to]) => `${from[0]} ${to[0]}`));
  for (const child of order) {
    for (const parent of order) if (between.has(`${parent} ${child}`)) boxes.get(child).layer = Math.max(boxes.get(child).layer, boxes.get(parent).layer + 1);
  }
  for (const parent of [...order].reverse()) { // sources stand next to what reads them
    const next = order.filter((child) => between.has(`${parent} ${child}`)).map((child) => boxes.get(child).layer);
    if (next.length && ![...between].some((pair) => pair.endsWith(` ${parent}`))) boxes.get(parent).layer = Math.min(...next) - 1;
  }
  const layers = [];
  for (const each of order) (layers[boxes.get(each).layer] ??= []).push(boxes.get(each));
  const tall = (box) => HEAD + Math.max(box.rows.length, column === undefined ? 0 : 1) * ROW + (box.rows.length ? 6 : 0);
  let height = 0;
  layers.forEach((layer, depth) => {
    const middle = (box) => {
      const above = order.filter((each) => between.has(`${each} ${box.index}`)).map((each) => boxes.get(each).y + tall(boxes.get(each)) / 2);
      return above.length ? above.reduce((sum, each) => sum + each, 0) / above.length : 0;
    };
    layer.sort((a, b) => middle(a) - middle(b));
    let y = 8;
    for (const box of layer) {
      box.x = 8 + depth * (BOX + GAP);
      box.y = Math.max(y, layer.length === 1 ? middle(box) - tall(box) / 2 : y);
      y = box.y + tall(box) + 14;
    }
    height = Math.max(height, y);
  });
  const width = 16 + layers.length * BOX + (layers.length - 1) * GAP;
  const port = ([each, name], side) => {
    const box = boxes.get(each);
    const row = name === undefined ? -1 : box.rows.indexOf(name);
    return [box.x + (side > 0 ? BOX : 0), row < 0 ? box.y + HEAD / 2 : box.y + HEAD + row * ROW + ROW / 2 + 1];
  };
  const dashes = { passthrough: null, expression: "5 3", aggregate: "1.5 3" };
  const paths = links.map(([from, to, kind]) => {
    const [[x1, y1], [x2, y2]] = [port(from, 1), port(to, -1)];
    const bend = Math.max(24, (x2 - x1) / 2);
    return s("path", { d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, fill: "none", stroke: "var(--strong-line)", "stroke-width": kind === "aggregate" ? 2.4 : 1.5, "stroke-linecap": "round", "stroke-dasharray": dashes[kind] });
  });
  const drawn = [...boxes.values()].map((box) => {
    const node = graph.nodes[box.index];
    const isFocus = box.index === index;
    const trust = data.marts.find((mart) => mart.mart === node.name && node.layer === "marts");
    return s("g", { class: isFocus ? "focus" : null, transform: `translate(${box.x} ${box.y})` },
      s("rect", { width: BOX, height: tall(box), rx: 6, fill: "var(--raised)", stroke: isFocus ? "var(--focus)" : "var(--strong-line)", "stroke-width": isFocus ? 2 : 1 }),
      s("a", { href: href(box.index) }, s("rect", { class: "row", x: 1, y: 1, width: BOX - 2, height: HEAD - 2, rx: 5, fill: "transparent" }),
        s("text", { x: 10, y: 18, "font-size": 12, "font-weight": 650 }, short(title(node), trust ? 22 : 25)),
        s("title", null, `${title(node)}: ${WORDS[node.kind]}${node.layer ? `, ${node.layer}` : ""}${trust ? `, ${trust.status}` : ""}`)),
      trust && trust.status !== "fresh" ? s("svg", { x: BOX - 22, y: 7, width: 13, height: 13, viewBox: "0 0 16 16", class: tone(trust.status) }, s("path", { d: SHAPES[tone(trust.status)], fill: "var(--solid)", "fill-rule": "evenodd" })) : "",
      box.rows.length ? s("line", { x1: 0, x2: BOX, y1: HEAD, y2: HEAD, stroke: "var(--line)" }) : "",
      box.rows.map((name, row) => s("a", { href: href(box.index, name) },
        s("rect", { class: "row", x: 2, y: HEAD + row * ROW + 2, width: BOX - 4, height: ROW - 1, rx: 3, fill: isFocus && name === column ? "var(--busy-fill)" : "transparent" }),
        s("text", { class: "mono", x: 10, y: HEAD + row * ROW + 15, "font-size": 11.5 }, name === null ? "(rows)" : short(name, 26)),
        s("title", null, name === null ? "how many rows" : name))));
  });
  return [
    h("div", { class: "box diagram", tabindex: "0", role: "region", "aria-label": "Lineage diagram" },
      s("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `Lineage of ${title(graph.nodes[index])}${column ? `, column ${column}` : ""}` }, paths, drawn)),
    h("p", { class: "legend", "aria-hidden": "true" }, column === undefined ? "" : Object.entries(KINDS).map(([kind, said]) =>
      h("span", null, s("svg", { viewBox: "0 0 14 14" }, s("path", { d: "M0 7h14", stroke: "var(--strong-line)", "stroke-width": kind === "aggregate" ? 2.4 : 1.5, "stroke-dasharray": dashes[kind], "stroke-linecap": "round" })), said))),
  ];
}

const placeLink = (index, column) => h("a", { href: href(index, column) }, h("code", null, column === null ? `rows of ${title(graph.nodes[index])}` : column === undefined ? title(graph.nodes[index]) : `${title(graph.nodes[index])}.${column}`));

// What a column comes from, as a list within lists, down to the fields of the sources; what comes twice is followed once.
function tree(place, shown = new Set()) {
  const found = origins(place);
  if (!found.length) return "";
  return h("ul", null, found.map(([index, column, kind]) => {
    const node = graph.nodes[index];
    const remark = column === null ? "" : findColumn(index, column)?.[1];
    const end = node.kind === "stream" ? `${column === null ? "" : "field of "}${node.place ?? node.name}` : node.kind === "relation" ? "outside the project" : "";
    const id = `${index}/${column}`;
    const again = shown.has(id) && origins([index, column]).length > 0;
    shown.add(id);
    return h("li", null, placeLink(index, column), h("span", { class: "soft" }, ` ${KINDS[kind]}${end ? `; ${end}` : ""}${remark ? `; ${remark}` : ""}${again ? "; as above" : ""}`), again ? "" : tree([index, column], shown));
  }));
}

function focusOn(index, column) {
  const node = graph.nodes[index];
  const facts = [WORDS[node.kind], node.layer, node.materialized, node.relation && node.relation !== node.name ? node.relation : null, node.place, node.owner ? `owner: ${node.owner}` : null].filter(Boolean).join(" · ");
  const remarks = { "not known": "Where this comes from, or all of it, is not known: the SQL could not be followed.", constant: "A constant: it is written in the SQL.", generated: node.kind === "snapshot" ? "The snapshot makes it." : node.kind === "source" ? "Loading makes it." : "It is made when the query runs.", hashed: "Hashed before it lands.", masked: "Masked wherever rows are shown." };
  const remark = column ? findColumn(index, column)?.[1] : "";
  const chips = (owner) => h("div", { class: "chips" }, columnsOf(owner).map(([name, said]) =>
    h("a", { class: "chip", href: href(owner, name), "aria-current": owner === index && name === column ? "true" : null }, name, said ? h("span", { class: "kind" }, said) : "")));
  const marts = node.kind === "exposure" ? parentsOf(index) : [];
  const used = column === undefined ? childrenOf(index).map((child) => [child, undefined]) : usesOf([index, column]);
  return [
    h("div", { class: "focus-card" },
      h("p", { class: "soft" }, facts),
      h("h3", null, title(node), column === undefined ? "" : [" · ", h("code", null, column ?? "rows")]),
      node.description && column === undefined ? h("p", { class: "soft" }, node.description) : "",
      remark ? h("p", { "data-remark": remark }, remarks[remark] ?? remark) : "",
      node.is_partial ? h("p", { class: "warning toned" }, "Not all of its columns are known.") : "",
      node.kind === "exposure" && node.url && /^https?:\/\//.test(node.url) ? h("p", null, h("a", { href: node.url, rel: "noreferrer" }, node.url)) : "",
      marts.length ? marts.map((each) => [h("h3", null, placeLink(each, undefined)), chips(each)]) : [h("p", { class: "hidden" }, "Columns"), chips(index)]),
    diagram(index, column),
    h("div", { class: "two" },
      h("div", { class: "tree", id: "origins" }, h("h3", null, "Comes from"), column === undefined
        ? (parentsOf(index).length ? h("ul", null, parentsOf(index).map((each) => h("li", null, placeLink(each, undefined), h("span", { class: "soft" }, ` ${WORDS[graph.nodes[each].kind]}`)))) : h("p", { class: "none" }, node.kind === "stream" ? "The source." : "Nothing else."))
        : (tree([index, column]) || h("p", { class: "none" }, remark ? remarks[remark] ?? remark : node.kind === "stream" ? "It is the source's own field." : "Nothing else."))),
      h("div", { class: "tree", id: "uses" }, h("h3", null, "Goes into"), used.length
        ? h("ul", null, used.slice(0, 60).map(([each, name, kind]) => h("li", null, placeLink(each, name), h("span", { class: "soft" }, ` ${kind ? KINDS[kind] : WORDS[graph.nodes[each].kind]}`))), used.length > 60 ? h("li", { class: "soft" }, `and ${number(used.length - 60)} more`) : "")
        : h("p", { class: "none" }, "Nothing in the project."))),
  ];
}

function lineage() {
  if (!graph) return h("p", { class: "none", id: "no-lineage" }, "Not known: no manifest of dbt was at hand when this page was made. The next transform brings it.");
  const view = h("div", { id: "focus", "aria-live": "polite" });
  const found = h("div", { class: "found", role: "list", "aria-label": "Found" });
  const search = (text) => {
    const words = text.toLowerCase().split(/[\s.]+/).filter(Boolean);
    const hits = [];
    if (words.length) {
      const order = [...graph.nodes.keys()].sort((a, b) => (graph.nodes[b].layer === "marts") - (graph.nodes[a].layer === "marts"));
      for (const index of order) {
        const name = `${graph.nodes[index].name} ${graph.nodes[index].label ?? ""}`.toLowerCase();
        if (words.every((word) => name.includes(word))) hits.unshift([index, undefined]);
        for (const [column] of columnsOf(index)) if (hits.length < 200 && words.every((word) => `${name} ${column}`.toLowerCase().includes(word)) && words.some((word) => column.toLowerCase().includes(word))) hits.push([index, column]);
      }
    }
    found.replaceChildren(...hits.slice(0, 24).map(([index, column]) => h("a", { role: "listitem", class: "chip", href: href(index, column) }, column === undefined ? title(graph.nodes[index]) : `${graph.nodes[index].name}.${column}`, h("span", { class: "kind" }, graph.nodes[index].layer ?? WORDS[graph.nodes[index].kind]))));
    if (hits.length > 24) found.append(h("span", { class: "soft" }, `and ${number(hits.length - 24)} more`));
    if (words.length && !hits.length) found.append(h("span", { class: "soft" }, "Nothing has such a name."));
  };
  const input = h("input", { type: "search", id: "find", placeholder: "mart, column, field …", autocomplete: "off", oninput: () => search(input.value) });
  const show = () => {
    const [, id, column] = decodeHash();
    const first = graph.nodes.findIndex((node) => node.kind === "exposure");
    const index = byId.get(id) ?? (first >= 0 ? first : Math.max(0, graph.nodes.findLastIndex((node) => node.layer === "marts")));
    if (graph.nodes.length) view.replaceChildren(...focusOn(index, column).flat(Infinity).filter((each) => each !== ""));
    requestAnimationFrame(() => { // what is asked for is in sight, however wide the picture is
      const box = view.querySelector(".diagram");
      const focus = box?.querySelector(".focus")?.getBoundingClientRect();
      if (focus) box.scrollLeft += focus.right - box.getBoundingClientRect().right + 24;
    });
  };
  show();
  addEventListener("hashchange", () => {
    if (location.hash.startsWith("#lineage/")) {
      show();
      document.getElementById("lineage").scrollIntoView();
    }
  });
  const ends = graph.nodes.filter((node) => node.kind === "exposure" || node.layer === "marts").sort((a, b) => (b.kind === "exposure") - (a.kind === "exposure") || a.name.localeCompare(b.name));
  return [
    h("p", { class: "about" }, `As the build of ${instant(graph.as_of)} UTC had it: `, when(graph.as_of), ". What is not known is said to be so."),
    h("div", { class: "find" }, h("label", { for: "find" }, "Find"), input),
    found,
    h("details", { class: "ends", open: ends.length <= 16 }, h("summary", null, `${plural(ends.length, "dashboard or mart", "dashboards and marts")}`), h("div", { class: "chips" }, ends.map((node) => nodeChip(node)))),
    view,
  ];
}

function decodeHash() {
  const [section, id, column] = location.hash.slice(1).split("/");
  const text = (part) => { try { return decodeURIComponent(part); } catch { return part; } };
  return [section, id === undefined ? undefined : text(id), column === undefined ? undefined : column === "*" ? null : text(column.slice(1))];
}
