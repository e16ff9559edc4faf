// The sections but for lineage: each a heading, a word on what it shows, and what `data` has of it.

const exposures = new Map(); // dashboards by the mart that they read
function marts() {
  const lineage = data.lineage;
  for (const [parent, child] of lineage?.edges ?? []) {
    const [from, to] = [lineage.nodes[parent], lineage.nodes[child]];
    if (to.kind !== "exposure") continue;
    exposures.set(from.name, [...(exposures.get(from.name) ?? []), to]);
  }
  return table("marts", "Marts and how far they can be trusted", [
    { key: "status", label: "Status", show: (row) => pill(row.status), sort: (row) => ["held back", "stale", "late", "fresh"].indexOf(row.status) },
    { key: "mart", label: "Mart", heading: true, class: "name-cell", show: (row) => martLink(row.mart) },
    { key: "data_as_of", label: "Data as of (UTC)", show: (row) => when(row.data_as_of) },
    { key: "published_at", label: "Published (UTC)", show: (row) => when(row.published_at) },
    { key: "generation", label: "Generation", number: true },
    { key: "rows", label: "Rows", number: true },
    { key: "tests_passed", label: "Passed", number: true },
    { key: "tests_failed", label: "Failed", number: true, show: (row) => toned(row.tests_failed, "bad") },
    { key: "tests_warned", label: "Warned", number: true, show: (row) => toned(row.tests_warned, "warning") },
    { key: "quarantined_rows", label: "Quarantined", number: true, show: (row) => toned(row.quarantined_rows, "warning") },
    { key: "mart_group", label: "Group" },
    { key: "why", label: "Why", detail: true },
    { key: "dashboards", label: "Read by", sort: null, show: (row) => h("span", { class: "chips" }, (exposures.get(row.mart) ?? []).map((each) => nodeChip(each))) },
  ], data.marts, 60);
}

const toned = (count, kind) => (count ? h("strong", { class: `${kind} toned` }, number(count)) : number(count));
const nodeNamed = (name) => data.lineage?.nodes.find((each) => each.name === name && each.kind !== "stream" && each.kind !== "source");
const nodeChip = (node, text = node.label ?? node.name) => h("a", { class: "chip", href: `#lineage/${key(node.id)}` }, text);
function martLink(name) {
  const node = nodeNamed(name);
  return node ? h("a", { href: `#lineage/${key(node.id)}` }, name) : name;
}

function incidents() {
  const open = data.incidents.map((each) => {
    const snoozed = each.snoozed_until && Date.parse(each.snoozed_until) > Date.parse(data.made_at);
    const chips = (names) => h("span", { class: "chips" }, names.map((name) => {
      const node = data.lineage?.nodes.find((one) => one.name === name || one.label === name);
      return node ? nodeChip(node, name) : h("span", { class: "chip" }, name);
    }));
    return h("article", { class: `incident ${snoozed ? "calm" : tone(each.severity)}`, "data-incident": each.incident_id, "aria-labelledby": `incident-${each.incident_id}` },
      h("p", { class: "facts" }, pill(each.severity), snoozed ? pill("snoozed", "calm") : "", h("span", null, `#${each.incident_id}`),
        h("span", null, "open since ", when(each.opened_at)), h("span", null, "last seen ", when(each.last_seen_at)),
        h("span", null, `seen ${number(each.times_seen)} ×`), each.owner ? h("span", null, `owner: ${each.owner}`) : ""),
      h("h3", { id: `incident-${each.incident_id}` }, each.title),
      h("dl", null,
        h("dt", null, "Type next"), h("dd", null, command(each.next_command)),
        h("dt", null, "Likely cause"), h("dd", { "data-field": "cause" }, each.cause),
        each.affected_marts.length ? [h("dt", null, "Marts"), h("dd", null, chips(each.affected_marts))] : "",
        each.affected_dashboards.length ? [h("dt", null, "Dashboards"), h("dd", null, chips(each.affected_dashboards))] : "",
        snoozed ? [h("dt", null, "Snoozed"), h("dd", null, `by ${each.snoozed_by ?? "somebody"}: ${each.snoozed_why ?? ""}; wakes `, when(each.snoozed_until))] : "",
        each.signs.length ? [h("dt", null, "Signs"), h("dd", null, h("ul", null, each.signs.map((sign) =>
          h("li", null, sign.title, h("span", { class: "soft" }, ` — ${sign.kind}, since `), when(sign.first_seen_at)))))] : ""));
  });
  const closed = table("closed_incidents", "Incidents closed in the last 14 days", [
    { key: "severity", label: "Severity", show: (row) => pill(row.severity) },
    { key: "title", label: "What it was", heading: true, class: "why" },
    { key: "opened_at", label: "Opened (UTC)", show: (row) => when(row.opened_at) },
    { key: "closed_at", label: "Closed (UTC)", show: (row) => when(row.closed_at) },
    { key: "lasted", label: "Lasted", sort: (row) => Date.parse(row.closed_at) - Date.parse(row.opened_at), show: (row) => duration(Date.parse(row.closed_at) - Date.parse(row.opened_at)) },
    { key: "closed_why", label: "Why closed", detail: true },
  ], data.closed_incidents, 15);
  const held = data.alerts.filter((each) => each.waiting || each.given_up);
  return [
    open.length ? open : h("p", { class: "none" }, "No incident is open."),
    held.map((each) => h("p", { class: "warning toned" }, sign("warning"), ` ${plural(each.waiting + each.given_up, "message")} to ${each.channel} ${each.waiting + each.given_up === 1 ? "has" : "have"} not been delivered`,
      each.waiting_since ? [" since ", when(each.waiting_since)] : "", each.last_error ? `: ${each.last_error}` : ".")),
    data.closed_incidents.length ? h("details", null, h("summary", null, `${plural(data.closed_incidents.length, "incident")} closed in the last 14 days`), closed) : "",
  ];
}

function streams() {
  return table("streams", "How far each stream is", [
    { key: "status", label: "Status", show: (row) => pill(row.status), sort: (row) => ["stale", "late", "never loaded", "not checked", "not watched", "fresh"].indexOf(row.status) },
    { key: "stream", label: "Stream", heading: true, class: "name-cell", sort: streamName, show: streamName },
    { key: "as_of", label: "Complete up to (UTC)", show: (row) => when(row.as_of) },
    { key: "stale_at", label: "Late, then stale (UTC)", show: (row) => freshnessBar(row) },
    { key: "loaded_at", label: "Last loaded (UTC)", show: (row) => when(row.loaded_at) },
    { key: "tried_status", label: "Last try", show: (row) => pill(row.tried_status) },
    { key: "windows", label: "Windows", sort: null, show: (row) => (row.windows ? h("span", { class: "chips" }, STATES.filter((state) => row.windows[state]).map((state) => h("span", { class: `${state === "stale" ? "warning" : tone(state)} toned` }, `${number(row.windows[state])} ${state}`))) : "") },
    { key: "watermark", label: "Watermark" , class: "name-cell" },
    { key: "quarantined_rows", label: "Quarantined", number: true, show: (row) => toned(row.quarantined_rows, "warning") },
    { key: "reconciled", label: "Compared with source", show: (row) => (row.reconciled ? [pill(row.reconciled), " ", when(row.reconciled_at)] : "") },
    { key: "error", label: "Last error", detail: true, show: (row) => (row.tried_status === "failed" ? row.error : "") },
  ], data.streams, 60);
}

// The way from complete to stale, and how much of it has passed.
function freshnessBar(row) {
  const limit = row.stale_at ?? row.late_at;
  if (!limit || !row.as_of) return "";
  const [from, to, now] = [Date.parse(row.as_of), Date.parse(limit), Date.parse(data.made_at)];
  const width = 110;
  const x = (time) => Math.max(0, Math.min(width, ((time - from) / (to - from)) * width * 0.9));
  const late = row.late_at ? x(Date.parse(row.late_at)) : null;
  return h("span", null,
    s("svg", { class: tone(row.status), width, height: 10, "aria-hidden": "true" },
      s("rect", { x: 0, y: 3, width, height: 4, rx: 2, fill: "var(--line)" }), s("rect", { x: 0, y: 3, width: x(now), height: 4, rx: 2, fill: "var(--solid)" }),
      [late, width * 0.9].filter((each) => each !== null).map((at) => s("rect", { x: at, y: 0, width: 1.5, height: 10, fill: "var(--strong-line)" }))),
    h("br"), row.late_at ? ["late ", when(row.late_at, true)] : "", row.stale_at ? [row.late_at ? ", " : "", "stale ", when(row.stale_at, true)] : "");
}

const holes = (stream) => (stream.counts.missing ?? 0) + (stream.counts.failed ?? 0);

function coverage() {
  const drawn = data.coverage.filter((each) => each.windows.length).map((each) => {
    const bad = each.windows.filter(([, state]) => state !== "loaded");
    return h("div", { class: "calendar" },
      h("div", { class: "head" }, h("h3", null, h("code", null, streamName(each))),
        h("span", { class: "soft" }, `${plural(each.windows.length, "window")} of a ${each.size}, ${each.time_zone}: `,
          STATES.filter((state) => each.counts[state]).map((state) => `${number(each.counts[state])} ${state}`).join(", "))),
      h("div", { class: "box", tabindex: "0", role: "region", "aria-label": `Calendar of ${streamName(each)}`, "data-latest": true }, calendar(each)),
      bad.length ? h("details", null, h("summary", null, `${plural(bad.length, "window")} not as ${bad.length === 1 ? "it" : "they"} should be`),
        holes(each) ? h("div", { class: "fill" }, "This fills what is missing or failed: ", command(`headwater backfill run ${streamName(each)}`)) : "",
        table(`windows ${streamName(each)}`, `Windows of ${streamName(each)} that are not loaded`, [
          { key: "start", label: "From (UTC)", heading: true, show: ([start]) => instant(start), sort: ([start]) => start },
          { key: "state", label: "State", show: ([, state]) => pill(state, state === "stale" ? "warning" : tone(state)), sort: ([, state]) => state },
          { key: "rows", label: "Rows", number: true, show: ([, , rows]) => number(rows), sort: ([, , rows]) => rows },
          { key: "why", label: "Why", class: "why", show: ([, , , why]) => why, sort: null },
        ], bad)) : "");
  });
  return drawn.length ? [legend(["loaded", "stale", "running", "missing", "failed"]), drawn] : h("p", { class: "none" }, "No stream has windows.");
}

function loads() {
  const byStream = new Map();
  for (const load of data.loads) byStream.set(streamName(load), [...(byStream.get(streamName(load)) ?? []), load]);
  const volumes = [...byStream].sort(([one], [other]) => one.localeCompare(other)).map(([stream, found]) => {
    const sizes = found.map((each) => each.rows_extracted).filter((each) => each !== null).sort((a, b) => a - b);
    return { stream, found, latest: found.find((each) => each.rows_extracted !== null)?.rows_extracted ?? null, median: sizes[Math.floor(sizes.length / 2)] ?? null, failed: found.filter((each) => each.status === "failed").length };
  });
  return [
    h("h3", null, "Rows of the last loads"),
    table("volumes", "Rows that each of the last loads has read, by stream", [
      { key: "stream", label: "Stream", heading: true, class: "name-cell" },
      { key: "bars", label: "Oldest to newest", sort: null, show: (row) => bars([...row.found].reverse()) },
      { key: "latest", label: "Latest", number: true },
      { key: "median", label: "Median", number: true },
      { key: "failed", label: "Failed", number: true, show: (row) => toned(row.failed, "bad") },
    ], volumes, 40),
    h("h3", null, "Loads"),
    table("loads", "The last loads of each stream", [
      { key: "status", label: "Status", show: (row) => pill(row.status) },
      { key: "stream", label: "Stream", heading: true, class: "name-cell", show: streamName, sort: streamName },
      { key: "started_at", label: "Started (UTC)", show: (row) => when(row.started_at) },
      { key: "window", label: "Window (UTC)", sort: (row) => row.window_start, show: (row) => (row.window_start ? `${instant(row.window_start)} to ${instant(row.window_end)}` : row.kind === "rows" ? "" : row.kind) },
      { key: "rows_extracted", label: "Read", number: true },
      { key: "rows_inserted", label: "Inserted", number: true },
      { key: "rows_updated", label: "Updated", number: true },
      { key: "rows_unchanged", label: "Unchanged", number: true },
      { key: "rows_quarantined", label: "Quarantined", number: true, show: (row) => toned(row.rows_quarantined, "warning") },
      { key: "rows_deleted", label: "Deleted", number: true },
      { key: "bytes_landed", label: "Bytes landed", number: true },
      { key: "attempt", label: "Tries", number: true },
      { key: "error", label: "Error", detail: true },
      { key: "load_id", label: "Load", class: "name-cell" },
      { key: "run_id", label: "Run" },
    ], data.loads, 15),
  ];
}

function builds() {
  return [
    h("h3", null, "dbt builds"),
    table("builds", "The last builds", [
      { key: "is_success", label: "Outcome", show: (row) => (row.is_success ? pill("passed") : pill("failed")) },
      { key: "started_at", label: "Started (UTC)", heading: true, class: "plain", show: (row) => when(row.started_at) },
      { key: "took", label: "Took", number: true, sort: (row) => Date.parse(row.ended_at) - Date.parse(row.started_at), show: (row) => seconds((Date.parse(row.ended_at) - Date.parse(row.started_at)) / 1000) },
      { key: "selection", label: "Selected", class: "name-cell", show: (row) => row.selection ?? "all" },
      { key: "built", label: "Built", number: true },
      { key: "passed", label: "Tests passed", number: true },
      { key: "warned", label: "Warned", number: true, show: (row) => toned(row.warned, "warning") },
      { key: "failed", label: "Failed", number: true, show: (row) => toned(row.failed, "bad") },
      { key: "skipped", label: "Skipped", number: true },
      { key: "generation", label: "Published as", number: true, show: (row) => (row.generation === null ? "" : number(row.generation)) },
      { key: "run_id", label: "Run" },
      { key: "error", label: "Error", detail: true },
    ], data.builds, 12),
    data.failed_nodes.length ? [h("h3", null, "What did not pass in the last one"), table("failed_nodes", "Nodes that failed or warned in the last build", [
      { key: "status", label: "Status", show: (row) => pill(row.status) },
      { key: "name", label: "Node", heading: true, class: "name-cell" },
      { key: "resource_type", label: "Kind" },
      { key: "failures", label: "Failing rows", number: true },
      { key: "message", label: "What it says", detail: true },
    ], data.failed_nodes)] : "",
    h("h3", null, "Publishes"),
    table("publishes", "The last generations of serving", [
      { key: "generation", label: "Generation", heading: true, number: true, show: (row) => number(row.generation) },
      { key: "published_at", label: "Published (UTC)", show: (row) => when(row.published_at) },
      { key: "groups", label: "Groups", sort: null, show: (row) => [(row.groups ?? []).join(", "), row.undone ? [" ", pill("undone")] : ""] },
      { key: "marts", label: "Marts", number: true },
      { key: "rows_inserted", label: "Inserted", number: true },
      { key: "rows_updated", label: "Updated", number: true },
      { key: "rows_deleted", label: "Deleted", number: true },
    ], data.publishes, 10),
    h("h3", null, "Slowest models"),
    table("slowest", "The models that took longest in the last build of the whole project", [
      { key: "name", label: "Model", heading: true, class: "name-cell", show: (row) => martLink(row.name) },
      { key: "bar", label: "Last and usual", sort: null, show: (row) => slowBar(row) },
      { key: "seconds", label: "Last", number: true, show: (row) => seconds(row.seconds) },
      { key: "median_seconds", label: "Median", number: true, show: (row) => seconds(row.median_seconds) },
      { key: "rows_affected", label: "Rows", number: true },
      { key: "materialized", label: "Built as" },
      { key: "layer", label: "Layer" },
    ], data.slowest, 12),
  ];
}

function slowBar(row) {
  const most = Math.max(...data.slowest.map((each) => Math.max(each.seconds, each.median_seconds))) || 1;
  const width = 150;
  return s("svg", { class: "busy", width, height: 14, "aria-hidden": "true" },
    s("rect", { x: 0, y: 3, width: Math.max(1, (row.seconds / most) * (width - 4)), height: 8, rx: 2, fill: "var(--solid)" }),
    s("rect", { x: (row.median_seconds / most) * (width - 4), y: 0, width: 2, height: 14, fill: "var(--ink)" }));
}

function tests() {
  const total = Object.values(data.test_counts).reduce((sum, each) => sum + each, 0);
  const said = ["error", "fail", "warn", "skipped", "pass"].filter((each) => data.test_counts[each]).map((each) => `${number(data.test_counts[each])} ${each}`).join(", ");
  return [
    h("p", { class: "about" }, total ? `Of ${plural(total, "test")} in the last build of the whole project: ${said}. Those that passed in each of the last ${plural(data.test_builds.length, "build")} are not listed.` : "No build of the whole project is known yet."),
    total ? table("tests", "Tests that did not always pass", [
      { key: "status", label: "Now", show: (row) => pill(row.status) },
      { key: "name", label: "Test", heading: true, class: "name-cell" },
      { key: "history", label: "Oldest to newest", sort: null, show: (row) => h("span", { class: "matrix", role: "img", "aria-label": data.test_builds.map((each) => row.history[each.invocation_id] ?? "not run").join(", ") },
        data.test_builds.map((each) => s("svg", { viewBox: "0 0 14 14" }, square(row.history[each.invocation_id] ?? "skipped", 1, 1, 12), s("title", null, `${instant(each.started_at)} UTC: ${row.history[each.invocation_id] ?? "not run"}`)))) },
      { key: "failures", label: "Failing rows", number: true },
      { key: "severity", label: "Severity" },
      { key: "passed_at", label: "Last passed (UTC)", show: (row) => when(row.passed_at) },
      { key: "tests", label: "Looks at", sort: null, show: (row) => h("span", { class: "chips" }, (row.tests ?? []).map((id) => testedChip(id))) },
      { key: "message", label: "What it says", detail: true },
    ], data.tests) : "",
    total ? legend(["pass", "warn", "fail", "skipped"]) : "",
  ];
}
function testedChip(id) {
  const node = data.lineage?.nodes.find((each) => each.id === id);
  return node ? nodeChip(node) : h("span", { class: "chip" }, id.split(".").slice(2).join("."));
}

const quarantine = () => table("quarantine", "Rows in quarantine, by reason", [
  { key: "stream", label: "Stream", heading: true, class: "name-cell", show: streamName, sort: streamName },
  { key: "rows", label: "Rows", number: true },
  { key: "reason", label: "Reason", class: "why" },
  { key: "loads", label: "Loads", number: true },
  { key: "first_at", label: "First (UTC)", show: (row) => when(row.first_at) },
  { key: "last_at", label: "Last (UTC)", show: (row) => when(row.last_at) },
], data.quarantine);

const schemaChanges = () => table("schema_changes", "What changed in the shape of raw", [
  { key: "changed_at", label: "When (UTC)", show: (row) => when(row.changed_at) },
  { key: "stream", label: "Stream", class: "name-cell", show: streamName, sort: streamName },
  { key: "column_name", label: "Column", heading: true, class: "name-cell" },
  { key: "change", label: "Change" },
  { key: "from_type", label: "From" },
  { key: "to_type", label: "To" },
  { key: "rows_discarded", label: "Rows without it", number: true },
], data.schema_changes);
