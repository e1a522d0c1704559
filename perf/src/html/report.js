// The report: what is shown of the data, and what can be chosen.

const data = JSON.parse(document.getElementById("data").textContent);
const part = (id) => document.getElementById(id);
const COLOURS = 7;
const DASHES = [null, "7 5", "2 4"];
const colourOf = (index) => `var(--s${index % COLOURS})`;
const dashOf = (index) => DASHES[Math.floor(index / COLOURS) % DASHES.length];
const hidden = new Set();
const columns = data.columns.map((column, index) => ({ ...column, index, isInvalid: column.runs.some((run) => run.invalid.length > 0) }));
const titleOf = (column) => column.title || "unnamed";

/** What a column calls a histogram: by its name, or none where its file names none. */
function ownName(of, name) {
  return name in of ? name : "" in of ? "" : null;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function shownColumns() {
  return columns.filter((column) => !hidden.has(column.index));
}

function drawPercentiles() {
  const name = part("histogram").value;
  const histogram = data.histograms.find((one) => one.name === name);
  part("meaning").textContent = histogram?.meaning ?? "";
  const series = shownColumns().flatMap((column) => {
    const own = ownName(column.lines, name);
    return own === null ? [] : [{ title: titleOf(column), colour: colourOf(column.index), dash: dashOf(column.index), points: column.lines[own] }];
  });
  const end = Math.max(1, ...series.flatMap((one) => one.points.slice(-1).map((point) => point[0])));
  lineChart(part("percentiles"), {
    height: Math.max(300, Math.min(460, window.innerHeight * 0.6)), series, end, shade: 0, isTime: true, hasRatio: true,
    isLogarithmic: part("logarithmic").checked, text: timeText, label: `Latency by percentile: ${name}`,
    ticks: (width) => percentileTicks(end, width), tipTitle: (at) => `${percentileText(at)} percentile`,
  });
}

function percentileTicks(end, width) {
  const ticks = [[0, "0%"], [1, "90%"]];
  if (width / end > 170) ticks.splice(1, 0, [Math.log10(2), "50%"]);
  for (let nines = 2; nines <= end + 1e-9; nines += 1) {
    ticks.push([nines, nines === 2 ? "99%" : `99.${"9".repeat(nines - 2)}%`]);
  }
  return ticks;
}

function percentileText(at) {
  const percent = 100 * (1 - 10 ** -at);
  const decimals = Math.max(0, Math.ceil(at) - 1);
  return `${percent.toFixed(Math.min(decimals + 1, 8))}%`;
}

function drawLegend() {
  part("legend").replaceChildren(...columns.map((column) => {
    const key = shape("svg", { width: 24, height: 10, "aria-hidden": "true" });
    key.append(shape("line", { x1: 1, x2: 23, y1: 5, y2: 5, stroke: colourOf(column.index), "stroke-width": 3, "stroke-dasharray": dashOf(column.index) ?? "none" }));
    const badge = column.isInvalid ? element("span", { class: "badge" }, "INVALID") : null;
    const button = element("button", { type: "button", "aria-pressed": String(!hidden.has(column.index)), title: "Show or hide" }, key, element("span", {}, titleOf(column)), badge);
    button.addEventListener("click", () => {
      if (!hidden.delete(column.index)) hidden.add(column.index);
      button.setAttribute("aria-pressed", String(!hidden.has(column.index)));
      drawCharts();
    });
    return button;
  }));
}

/** A run of each column that is shown, of the chosen round, else its last one. */
function shownRuns() {
  const round = Number(part("round").value);
  return shownColumns().filter((column) => column.runs.length > 0).map((column) => ({
    column, run: column.runs.find((run) => run.round === round) ?? column.runs[column.runs.length - 1],
  }));
}

function timeTicks(end) {
  return (width) => linearScale(end, Math.max(2, Math.min(8, width / 70))).ticks.filter((value) => value <= end * 1.0001).map((value) => [value, `${plain(countText(value))} s`]);
}

function drawSeries() {
  const runs = shownRuns();
  const name = part("histogram").value;
  const latency = (kind) => (run) => run.latencies[ownName(run.latencies, name)]?.[kind] ?? null;
  const cores = (value) => (value === 0 ? "0" : digits(value));
  const kinds = [
    ["Published, messages a second", (run) => run.published, countText], ["Confirmed, messages a second", (run) => run.confirmed, countText],
    ["Received, messages a second", (run) => run.received, countText], ["Operations a second", (run) => run.operations, countText],
    [`p50 of ${name || "latency"}`, latency("p50"), timeText, true], [`p99 of ${name || "latency"}`, latency("p99"), timeText, true],
    [`Longest ${name || "latency"}`, latency("max"), timeText, true], ["Backlog, messages", (run) => run.backlog, countText],
    ["Broker CPU, cores", (run) => run.cpu, cores], ["Broker memory, resident", (run) => run.resident, octetsText, false, 1048576],
    ["Broker writes to disk, a second", (run) => run.disk, octetsText, false, 1048576],
  ];
  const end = Math.max(1, ...runs.map(({ run }) => Math.max(0, ...run.start.map((start, index) => start + run.seconds[index]))));
  const shade = Math.min(...runs.map(({ run }) => run.warm_up), end);
  const charts = kinds.flatMap(([title, of, text, isTime, unitSize]) => {
    const series = runs.flatMap(({ column, run }) => {
      const values = of(run);
      if (!values || values.every((value) => value === null)) return [];
      const points = run.start.map((start, index) => [start + run.seconds[index] / 2, values[index]]);
      return [{ title: titleOf(column), colour: colourOf(column.index), dash: dashOf(column.index), points }];
    });
    if (series.length === 0 || (/^Backlog|to disk/.test(title) && series.every((one) => one.points.every((point) => !point[1])))) return [];
    const holder = element("div", { class: "chart" });
    const isLogarithmic = Boolean(isTime) && part("logarithmic").checked;
    return [{ box: element("div", {}, element("h4", {}, title), holder), draw: () => lineChart(holder, {
      height: 190, series, end, shade, text, isTime, unitSize, isLogarithmic, isNearest: true, label: title, ticks: timeTicks(end), tipTitle: (at) => `${at.toFixed(1)} s`,
    }) }];
  });
  part("series").replaceChildren(...charts.map((chart) => chart.box));
  charts.forEach((chart) => chart.draw());
  drawHeat(runs, name, end, shade);
}

function drawHeat(runs, name, end, shade) {
  const maps = runs.flatMap(({ column, run }) => {
    const latencies = run.latencies[ownName(run.latencies, name)];
    return latencies ? [{ column, run, latencies }] : [];
  });
  const rows = maps.flatMap(({ latencies }) => latencies.heat.flatMap((cells) => cells.map((cell) => cell[0])));
  const [firstRow, lastRow] = [rows.reduce((a, b) => Math.min(a, b), Infinity), rows.reduce((a, b) => Math.max(a, b), 0)];
  let most = 1;
  for (const { run, latencies } of maps) {
    latencies.heat.forEach((cells, index) => cells.forEach((cell) => { most = Math.max(most, cell[1] / Math.max(run.seconds[index], 1e-9)); }));
  }
  part("heat-note").textContent = maps.length === 0 ? "No latencies." :
    `${name || "latency"}: the ${isDark() ? "brighter" : "darker"} a cell, the more messages had that latency in that moment (logarithmic, up to ${countText(most)} a second). All maps have the same scale.`;
  const boxes = maps.map(({ column, run, latencies }) => {
    const holder = element("div", { class: "chart" });
    const key = element("span", { style: `color:${colourOf(column.index)}`, "aria-hidden": "true" }, "■ ");
    return { box: element("div", {}, element("h4", {}, key, titleOf(column)), holder), draw: () => heatMap(holder, {
      height: 230, starts: run.start, seconds: run.seconds, heat: latencies.heat, rowsPerDecade: latencies.rows_per_decade,
      firstRow, lastRow, most, end, shade, ticks: timeTicks(end), isDark: isDark(), label: `Latency over time: ${titleOf(column)}`,
    }) };
  });
  part("heat").replaceChildren(...boxes.map((one) => one.box));
  boxes.forEach((one) => one.draw());
}

function drawTables() {
  const tables = data.comparison.tables.map((table) => {
    const heading = [table.heading, table.histogram].filter((text) => text).join(": ");
    const head = element("tr", {}, element("th", { scope: "col" }), ...table.columns.map((column, index) =>
      element("th", { scope: "colgroup", colspan: index === 0 ? 2 : 4, class: "first" }, column.title || "unnamed", " ",
        column.invalid.length > 0 ? element("span", { class: "badge" }, "INVALID") : null,
        column.failures.length > 0 ? element("span", { class: "badge" }, "FAILED") : null)));
    const body = table.metrics.map((metric) => element("tr", {},
      element("th", { scope: "row" }, metric.unit === "ns" ? metric.name : `${metric.name} ${metric.unit}`),
      ...table.columns.flatMap((column, index) => cells(metric, column.values[metric.name], index))));
    const notes = table.notes.map((note) => element("li", {}, note));
    const isRare = table.columns.some((column) => Object.values(column.values).some((value) => value?.is_rare));
    if (isRare) notes.unshift(element("li", {}, "* rests on ten messages or fewer: another run may show something else"));
    return element("div", {}, heading ? element("h3", {}, heading) : null,
      element("div", { class: "scroll" }, element("table", { class: "values" }, element("thead", {}, head), element("tbody", {}, ...body))),
      notes.length > 0 ? element("ul", { class: "quiet" }, ...notes) : null);
  });
  const hasRatios = data.comparison.tables.some((table) => table.columns.length > 1);
  part("tables").replaceChildren(
    element("p", { class: "quiet" }, `Brackets: 95 % confidence, by drawing rounds and intervals anew.${hasRatios ? " Ratios are to the first column, coloured where they differ by more than chance." : ""}`),
    ...tables);
  if (!hasRatios) part("h-tables").textContent = "Values";
}

function cells(metric, value, index) {
  const isTime = metric.unit === "ns";
  const empty = Array.from({ length: index === 0 ? 2 : 4 }, () => element("td", {}, ""));
  if (!value) return empty;
  const unit = timeUnit(value.value);
  const text = isTime ? timeText(value.value) + (value.is_rare ? "*" : "") : countText(value.value);
  const number = (one) => (isTime ? timeNumber(one, unit) : countText(one));
  const range = (interval, format) => (interval ? `[${format(interval[0])}–${format(interval[1])}]` : "");
  const own = [element("td", { class: "first" }, text), element("td", { class: "range" }, range(value.interval, number))];
  if (index === 0) return own;
  const [from, to] = value.ratio_interval ?? [1, 1];
  const isMore = from > 1;
  const style = isMore || to < 1 ? (isMore === metric.is_cost ? "worse" : "better") : "";
  return [...own, element("td", { class: style }, value.ratio === null ? "" : `${ratioText(value.ratio)}×`),
    element("td", { class: "range" }, range(value.ratio_interval, ratioText))];
}

function alert(kind, title, texts) {
  return texts.length === 0 ? null : element("div", { class: `alert ${kind}`, role: kind === "bad" ? "alert" : "note" },
    element("strong", {}, title), element("ul", {}, ...texts.map((text) => element("li", {}, text))));
}

function drawAlerts() {
  const texts = (of) => columns.flatMap((column) => column.runs.flatMap((run) =>
    of(run).map((text) => `${titleOf(column)}${column.runs.length > 1 ? `, round ${run.round}` : ""}: ${text}`)));
  const faults = (run) => {
    const all = [["lost", run.check.lost], ["duplicated", run.check.duplicated], ["reordered", run.check.reordered], ["corrupted", run.check.corrupted], ["refused", run.check.totals.refused]];
    return all.filter(([, count]) => count > 0).map(([what, count]) => `${count} messages ${what}`);
  };
  part("alerts").replaceChildren(...[
    alert("bad", "Invalid: these latencies must not be trusted", texts((run) => run.invalid)),
    alert("bad", "Messages went wrong", texts(faults)),
    alert("bad", "Runs that failed or did not finish", texts((run) => run.failures)),
    alert("warn", "Not checked", texts((run) => run.unchecked)),
    alert("warn", "To be known", texts((run) => run.warnings)),
  ].filter((one) => one !== null));
}

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element("table", { class: "facts" }, element("tbody", {}, ...shown.map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)))));
}

function drawDetails() {
  const dateText = (millis) => (millis > 0 ? new Date(millis).toISOString().replace("T", " ").slice(0, 19) + " UTC" : null);
  const listText = (list) => (list.length > 0 ? list.join(", ") : null);
  const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
  const origins = data.origins.flatMap(({ file, origin }) => [element("h3", {}, data.origins.length > 1 ? `Machine of ${file}` : "Machine and command"), facts([
    ["Command", element("code", {}, origin.command.map(quoted).join(" "))], ["When", dateText(origin.started_unix_millis)],
    ["Processor", origin.cpu_model], ["Processors", String(origin.processors)], ["Memory", origin.memory_octets > 0 ? octetsText(origin.memory_octets) : null],
    ["Kernel", origin.kernel], ["lepus-perf", origin.version + (origin.revision ? ` (${origin.revision})` : "")],
  ])]);
  const details = columns.filter((column) => column.runs.length > 0).flatMap((column) => {
    const [run] = column.runs;
    const { target, broker } = run;
    const use = broker ? `${digits(broker.cpu_seconds)} CPU seconds, ${octetsText(broker.resident_octets_before)} resident before, ${octetsText(broker.resident_octets_max)} at most, ${broker.disk_octets === null ? "writes to disk not available" : `${octetsText(broker.disk_octets)} written to disk in ${countText(broker.write_calls)} calls`} (process ${broker.pid})` : null;
    const totals = Object.entries(run.check.totals).filter(([what, count]) => count > 0 && what !== "published_octets").map(([what, count]) => `${count} ${what}`);
    const busy = run.client_busy_part === null ? "" : `, its busiest thread at work for ${(100 * run.client_busy_part).toFixed(0)} %`;
    return [element("h3", {}, titleOf(column)), facts([
      ["Broker", [target.product, target.version, target.platform].filter((text) => text).join(" ")], ["Address", target.uri], ["Its cores", listText(target.cores)],
      ["Scenario", column.scenario], ["Wanted rate", column.rate === null ? null : `${countText(column.rate)} messages a second`],
      ["Workload", Object.keys(run.workload).length > 0 ? element("code", {}, Object.entries(run.workload).map(([key, value]) => `${key}=${value}`).join(" ")) : null],
      ["Rounds", String(column.runs.length)], ["Started", dateText(run.started)], ["Seed", String(run.seed)],
      ["Broker used", use], ["Load generator", run.client_cpu_seconds > 0 ? `${digits(run.client_cpu_seconds)} CPU seconds${run.client_cores.length > 0 ? ` on cores ${run.client_cores.join(", ")}` : ""}${busy}` : null],
      ["Messages", totals.length > 0 ? `${totals.join(", ")}${run.has_faults ? "" : "; none lost, duplicated, reordered or corrupted"}` : null],
    ])];
  });
  part("details").replaceChildren(...origins, ...details);
}

function drawCharts() {
  drawPercentiles();
  drawSeries();
}

function start() {
  const select = part("histogram");
  select.replaceChildren(...data.histograms.map(({ name }) => element("option", { value: name }, name || "latency")));
  const wanted = data.comparison.tables[0]?.histogram;
  if (data.histograms.some(({ name }) => name === wanted)) select.value = wanted;
  const rounds = [...new Set(columns.flatMap((column) => column.runs.map((run) => run.round)))].sort((a, b) => a - b);
  part("round").replaceChildren(...rounds.map((round) => element("option", { value: round }, String(round))));
  part("round-label").hidden = rounds.length < 2;
  part("time").hidden = rounds.length === 0;
  const names = columns.map(titleOf);
  part("summary").textContent = names.length > 1 ? names.join(" · ") : `${names[0] ?? ""} ${columns[0]?.scenario ?? ""}`;
  document.title = `${names.join(", ")} – lepus-perf`;
  part("footer").textContent = `Made by lepus-perf ${data.version}.`;
  const button = part("theme");
  const nameTheme = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
    drawCharts();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { nameTheme(); drawCharts(); });
  select.addEventListener("change", drawCharts);
  part("round").addEventListener("change", drawCharts);
  part("logarithmic").addEventListener("change", drawCharts);
  nameTheme();
  drawLegend();
  drawAlerts();
  drawTables();
  drawDetails();
  drawCharts();
}

start();
