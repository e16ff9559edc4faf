// Pictures of what the tables beside them also say: windows as a calendar, loads as bars, runs along the time.

const STATES = ["failed", "missing", "running", "stale", "loaded"]; // of a day with several windows the worst is shown
const CELL = 13;

// A square of a calendar or a history; what is not good has a shape of its own, not only a colour.
function square(state, x, y, size = CELL - 2) {
  const shapes = { loaded: "", pass: "", stale: "M3 8.4 8.4 3", running: "M4 3l5 3-5 3z", missing: "", warn: "M5.5 2.5v4M5.5 8v1", skipped: "M3 5.5h5",
    failed: "M3 3l5 5M8 3 3 8", fail: "M3 3l5 5M8 3 3 8", error: "M3 3l5 5M8 3 3 8" };
  const kind = state === "stale" ? "warning" : tone(state);
  const hollow = state === "missing";
  return s("g", { class: kind, transform: `translate(${x} ${y}) scale(${size / 11})` },
    s("rect", { x: 0.5, y: 0.5, width: 10, height: 10, rx: 2, fill: hollow ? "none" : "var(--solid)", stroke: "var(--solid)", "stroke-dasharray": hollow ? "2 1.5" : null, "fill-opacity": state === "loaded" || state === "pass" ? 0.8 : 1 }),
    shapes[state] ? s("path", { d: shapes[state], stroke: "var(--raised)", "stroke-width": 1.7, fill: state === "running" ? "var(--raised)" : "none", "stroke-linecap": "round" }) : "");
}

function legend(states) {
  return h("p", { class: "legend", "aria-hidden": "true" }, states.map((state) =>
    h("span", null, s("svg", { viewBox: "0 0 14 14" }, square(state, 1, 1, 12)), state)));
}

const dayFormats = new Map();
function localDay(text, zone) {
  if (!dayFormats.has(zone)) dayFormats.set(zone, new Intl.DateTimeFormat("en-CA", { timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit" }));
  return dayFormats.get(zone).format(new Date(text));
}

// The windows of a stream, a square a day, a column a week; windows longer than a day follow each other in a row.
function calendar(stream) {
  const days = new Map();
  for (const [start, state, rows] of stream.windows) {
    const day = localDay(start, stream.time_zone);
    const known = days.get(day) ?? { day, state, rows: 0, windows: 0 };
    known.windows += 1;
    known.rows += rows ?? 0;
    if (STATES.indexOf(state) < STATES.indexOf(known.state)) known.state = state;
    days.set(day, known);
  }
  const cells = [...days.values()];
  const long = stream.size === "week" || stream.size === "month";
  const first = Date.parse(`${cells[0].day}T00:00:00Z`);
  const offset = long ? 0 : (new Date(first).getUTCDay() + 6) % 7;
  const group = s("g");
  let width = 0;
  let month = "";
  const labels = s("g", { class: "soft" });
  cells.forEach((cell, index) => {
    const place = long ? index * 7 : Math.round((Date.parse(`${cell.day}T00:00:00Z`) - first) / 86400000) + offset;
    const x = 30 + Math.floor(place / 7) * CELL;
    const box = square(cell.state, x, 16 + (place % 7) * CELL);
    box.append(s("title", null, `${cell.day}: ${cell.state}, ${plural(cell.rows, "row")}${cell.windows > 1 ? ` in ${cell.windows} windows` : ""}`));
    group.append(box);
    width = Math.max(width, x + CELL);
    if (cell.day.slice(0, 7) !== month && (long ? index % 4 === 0 : true)) {
      month = cell.day.slice(0, 7);
      const name = new Date(`${cell.day}T00:00:00Z`).toLocaleString("en", { month: "short", timeZone: "UTC" });
      const last = labels.lastElementChild;
      const at = x + (place % 7 > 3 ? CELL : 0);
      if (!last || at - Number(last.getAttribute("x")) > 24) {
        labels.append(s("text", { x: at, y: 10, "font-size": 10, class: "soft" }, month.endsWith("-01") || index === 0 ? `${name} ${month.slice(2, 4)}` : name));
      }
    }
  });
  const height = 16 + (long ? 1 : 7) * CELL;
  const weekdays = long ? [] : ["Mon", "", "Wed", "", "Fri", "", ""].map((name, row) => s("text", { x: 0, y: 26 + row * CELL, "font-size": 10, class: "soft" }, name));
  const said = Object.entries(stream.counts).map(([state, count]) => `${count} ${state}`).join(", ");
  return s("svg", { class: "chart", width: width + 8, height, viewBox: `0 0 ${width + 8} ${height}`, role: "img", "aria-label": `Windows of ${streamName(stream)}: ${said}` },
    weekdays, labels, group);
}

// Rows that each of the last loads has read, the oldest first; a load that failed is a cross.
function bars(loads) {
  const most = Math.max(1, ...loads.map((load) => load.rows_extracted ?? 0));
  const [width, height] = [7, 34];
  return s("svg", { class: "spark", width: loads.length * width + 4, height, role: "img", "aria-label": `Rows of the last ${loads.length} loads, at most ${number(most)}` },
    loads.map((load, index) => {
      const x = index * width + 2;
      const title = s("title", null, `${instant(load.started_at)} UTC: ${load.status}, ${plural(load.rows_extracted ?? 0, "row")}`);
      if (load.status === "failed") {
        return s("g", { class: "bad" }, s("path", { d: `M${x} ${height - 7}l5 5m0-5-5 5`, stroke: "var(--solid)", "stroke-width": 1.8 }), title);
      }
      const tall = Math.max(1.5, ((load.rows_extracted ?? 0) / most) * (height - 4));
      return s("g", { class: load.status === "loaded" ? "busy" : "calm" }, s("rect", { x, y: height - tall, width: width - 2, height: tall, rx: 1, fill: "var(--solid)" }), title);
    }));
}

// What ran in the last day of which anything is known: loads by stream, builds, publishes.
function timeline() {
  const lanes = new Map();
  const add = (lane, from, to, state, said) => {
    if (!lanes.has(lane)) lanes.set(lane, []);
    lanes.get(lane).push({ from: Date.parse(from), to: Date.parse(to ?? from), state, said });
  };
  for (const load of data.loads) add(streamName(load), load.started_at, load.loaded_at, load.status, `load ${load.status}, ${plural(load.rows_extracted ?? 0, "row")}`);
  for (const build of data.builds) add("dbt build", build.started_at, build.ended_at, build.is_success ? "success" : "failed", build.is_success ? "build passed" : `build with ${plural(build.failed, "failure")}`);
  for (const publish of data.publishes) add("publish", publish.published_at, null, publish.undone ? "undone" : "published", `generation ${publish.generation}`);
  const events = [...lanes.values()].flat();
  if (!events.length) return h("p", { class: "none" }, "Nothing has run yet.");
  const end = Date.parse(data.made_at);
  const start = Math.max(end - 86400000, Math.min(...events.map((each) => each.from)) - 600000);
  const names = [...lanes.keys()].filter((name) => lanes.get(name).some((each) => each.to >= start))
    .sort((one, other) => (one === "publish") - (other === "publish") || (one === "dbt build") - (other === "dbt build") || one.localeCompare(other));
  if (!names.length) return h("p", { class: "none" }, "Nothing has run in the last 24 hours.");
  const [left, right, row] = [190, 985, 24];
  const at = (time) => left + ((Math.max(time, start) - start) / (end - start)) * (right - left);
  const height = names.length * row + 26;
  const hours = (end - start) / 3600000;
  const step = [1 / 6, 0.5, 1, 2, 3, 6].find((each) => hours / each <= 9) ?? 6;
  const marks = [];
  for (let time = Math.ceil(start / (step * 3600000)) * step * 3600000; time < end; time += step * 3600000) marks.push(time);
  const svg = s("svg", { class: "chart", width: right + 25, height, viewBox: `0 0 ${right + 25} ${height}`, role: "img", "aria-label": `What ran in the last ${duration(end - start)}: ${plural(names.length, "lane")}. The tables below say the same.` },
    marks.map((time) => [s("line", { x1: at(time), x2: at(time), y1: 0, y2: height - 20, stroke: "var(--line)" }),
      s("text", { x: at(time), y: height - 5, "font-size": 11, class: "soft", "text-anchor": "middle" }, new Date(time).toISOString().slice(11, 16))]),
    names.map((name, index) => s("g", null,
      s("text", { x: left - 12, y: index * row + 16, "font-size": 12, "text-anchor": "end" }, short(name, 27), s("title", null, name)),
      s("line", { x1: left, x2: right, y1: index * row + 12, y2: index * row + 12, stroke: "var(--line)" }),
      lanes.get(name).filter((each) => each.to >= start).map((each) => {
        const x = at(each.from);
        const width = Math.max(4, at(each.to) - x);
        const y = index * row + 4;
        const title = s("title", null, `${new Date(each.from).toISOString().slice(0, 16).replace("T", " ")} UTC: ${each.said}`);
        if (tone(each.state) === "bad") {
          return s("g", { class: "bad" }, s("rect", { x: x - 1, y, width: width + 7, height: 16, rx: 3, fill: "var(--solid)" }),
            s("path", { d: `M${x + 2} ${y + 5}l6 6m0-6-6 6`, stroke: "var(--raised)", "stroke-width": 1.8 }), title);
        }
        return s("g", { class: tone(each.state) === "good" && name !== "publish" ? "busy" : tone(each.state) },
          name === "publish" ? s("path", { d: `M${x} ${y + 1}l7 7-7 7-7-7z`, fill: "var(--solid)" }) : s("rect", { x, y: y + 2, width, height: 12, rx: 2, fill: "var(--solid)" }), title);
      }))));
  return h("div", { class: "box", tabindex: "0", role: "region", "aria-label": "Run timeline", "data-latest": true }, svg);
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
