// Puts the page together: the verdict first, then the sections, each drawn when it comes near.

const opens = data.incidents.length;
const worstMart = data.marts.some((mart) => tone(mart.status) === "bad") ? "bad" : data.marts.some((mart) => mart.status === "late") ? "warning" : null;
const notFresh = data.marts.filter((mart) => mart.status !== "fresh").length;
const lateStreams = data.streams.filter((each) => ["late", "stale", "never loaded"].includes(each.status));
const allHoles = data.coverage.reduce((sum, each) => sum + holes(each), 0);
const failedTests = (data.test_counts.fail ?? 0) + (data.test_counts.error ?? 0);

// [id, heading, what it shows, its content, how many, how bad]
const SECTIONS = [
  ["incidents", "Open incidents", "One trouble each, from its first sign to its recovery; what to type is beside it.", incidents, opens, opens ? (data.incidents.some((each) => each.severity !== "warning") ? "bad" : "warning") : null],
  ["marts", "Marts", "What BI reads. Held back: the last good generation is served, and newer data is not.", marts, notFresh, worstMart],
  ["streams", "Streams", "How far raw is complete, by the latest check and the clock of this page; thresholds are those of dbt's sources.", streams, lateStreams.length, lateStreams.some((each) => each.status !== "late") ? "bad" : lateStreams.length ? "warning" : null],
  ["coverage", "Coverage", ["Each window of the last year of a stream, by the ledger; ", h("code", null, "headwater windows"), " also looks at raw and the landing."], coverage, allHoles, allHoles ? "bad" : null],
  ["timeline", "Timeline", "What ran in the last 24 hours, as far as the lists below reach.", timeline],
  ["loads", "Loads", "The last 30 of each stream.", loads],
  ["builds", "Builds and publishes", null, builds],
  ["tests", "Tests", null, tests, failedTests, failedTests ? "bad" : null],
  ["quarantine", "Quarantine", "Rows that broke their contract and wait for a replay; their contents are not shown, nor values in reasons.", quarantine, data.quarantine.reduce((sum, each) => sum + each.rows, 0), null],
  ["schema", "Schema changes", "The last 100.", schemaChanges],
  ["lineage", "Lineage", null, lineage],
];

function top() {
  const { level, text, since } = data.verdict;
  const first = data.incidents[0];
  document.title = `${{ good: "Good", warning: "Warning", bad: "Trouble" }[level]} · Headwater: status`;
  const header = document.getElementById("top");
  header.classList.add(level);
  header.append(...[
    h("p", { class: "name" }, `Headwater status · warehouse ${data.warehouse}`),
    h("h1", { "data-level": level }, h("span", { class: `${level} toned` }, sign(level)), h("span", null, text)),
    h("p", { class: "made" }, since ? ["The oldest trouble began ", when(since), ". "] : "", "This page was made ", when(data.made_at), data.made_by ? ` by ${data.made_by}` : "", ". Times are UTC."),
    first ? h("div", { class: `first ${first.severity === "warning" ? "warning" : ""}` }, h("p", null, h("span", { class: "label" }, "Type next, for "), h("a", { href: "#incidents" }, first.title)), command(first.next_command)) : "",
  ].filter(Boolean));
}

function sectionElements() {
  const waiting = new Map();
  const draw = (id) => {
    const [section, content] = waiting.get(id) ?? [];
    if (!section) return;
    waiting.delete(id);
    for (const part of [content()].flat(Infinity)) if (part) section.append(part);
    for (const box of section.querySelectorAll("[data-latest]")) box.scrollLeft = box.scrollWidth; // where room is short, the latest is seen
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target.id); }
  }, { rootMargin: "900px" });
  const main = document.getElementById("main");
  main.replaceChildren();
  for (const [id, heading, about, content] of SECTIONS) {
    const section = h("section", { id, "aria-labelledby": `${id}-heading` }, h("h2", { id: `${id}-heading` }, heading), about ? h("p", { class: "about" }, about) : "");
    main.append(section);
    waiting.set(id, [section, content]);
    seen.observe(section);
  }
  const drawAll = () => SECTIONS.forEach(([id]) => draw(id));
  draw("incidents");
  draw("marts");
  if (location.hash.length > 1) { // what is above has its height before we go there
    drawAll();
    document.getElementById(decodeHash()[0])?.scrollIntoView();
  }
  addEventListener("hashchange", drawAll);
  addEventListener("beforeprint", drawAll);
}

function navigation() {
  document.getElementById("sections").append(h("ul", null, SECTIONS.map(([id, heading, , , count, level]) =>
    h("li", null, h("a", { href: `#${id}` }, heading, count ? h("span", { class: `count ${level ?? ""}` }, number(count)) : "")))));
}

// A page that nobody makes anew says so: what it shows may no longer be true.
function tellAge() {
  const old = (Date.now() - Date.parse(data.made_at)) / 1000 > data.old_after_seconds;
  const bar = document.getElementById("age");
  if (old) bar.replaceChildren(h("p", null, `This page is old. It was made ${age(data.made_at)}, and should be made anew after each run: something has stopped, and what it says may no longer be so. `, h("code", null, "headwater page"), " makes it now."));
  else bar.replaceChildren();
  document.documentElement.classList.toggle("old", old);
  for (const [element, text] of ages) element.textContent = age(text);
}

top();
navigation();
sectionElements();
document.getElementById("foot").append(
  h("p", null, "Made by Headwater from the warehouse alone. ", h("code", null, "status.json"), ` beside this page has the same, format ${data.version}.`,
    data.heartbeats.length ? [" Signs of life: ", data.heartbeats.map((each, index) => [index ? ", " : "", `${each.name} `, when(each.beat_at)]), "."] : ""));
tellAge();
setInterval(tellAge, 30000);
