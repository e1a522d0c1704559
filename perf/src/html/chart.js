// Charts: scales, ticks, lines that can be read off, heat maps. They know nothing of results.

const NAMESPACE = "http://www.w3.org/2000/svg";

/** An HTML element; text is set as text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function shape(name, attributes = {}, text = null) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

function digits(value) {
  const size = Math.abs(value);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

// Below 1 two significant digits, however small.
function ratioText(ratio) {
  const size = Math.abs(ratio);
  if (size >= 0.0995 || size === 0) return digits(ratio);
  return size < 0.000095 ? ratio.toExponential(1) : ratio.toFixed(Math.ceil(-Math.log10(size)) + 1);
}

const TIMES = [["s", 1e9], ["ms", 1e6], ["µs", 1e3], ["ns", 1]];

function timeUnit(nanos) {
  return TIMES.find(([, size]) => Math.abs(nanos) >= size * 0.9995) ?? TIMES[3];
}

function timeNumber(nanos, [name, size]) {
  return name === "ns" ? nanos.toFixed(0) : digits(nanos / size);
}

function timeText(nanos) {
  const unit = timeUnit(nanos);
  return `${timeNumber(nanos, unit)} ${unit[0]}`;
}

function countText(value) {
  const size = Math.abs(value);
  if (size < 999.5) return size < 99.95 && value % 1 !== 0 ? digits(value) : value.toFixed(0);
  return size < 999500 ? `${digits(value / 1e3)}k` : `${digits(value / 1e6)}M`;
}

function octetsText(value) {
  const mebibytes = value / 1048576;
  return mebibytes < 1024 ? `${digits(mebibytes)} MiB` : `${digits(mebibytes / 1024)} GiB`;
}

/** What is exact on an axis loses its zeros: 5.00 ms is 5 ms. */
function plain(text) {
  return text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
}

/** 1, 2 or 5 times a power of ten. */
function roundStep(step) {
  const power = 10 ** Math.floor(Math.log10(Math.max(step, 1e-12)));
  return [1, 2, 5, 10].map((digit) => digit * power).find((round) => round >= step * 0.999999);
}

function linearScale(longest, count, unitSize = 1) {
  const step = roundStep(longest / unitSize / count) * unitSize;
  const end = Math.max(1, Math.ceil(longest / step - 1e-9)) * step;
  const ticks = [];
  for (let index = 0; index * step <= end * 1.000001; index += 1) ticks.push(index * step);
  return { ticks, place: (value) => value / end };
}

function logScale(shortest, longest) {
  const from = 10 ** Math.floor(Math.log10(Math.max(shortest, 1e-9)) + 1e-9);
  let to = from;
  const all = [];
  for (let power = from; to < longest || all.length === 0; power *= 10) {
    for (const digit of [1, 2, 5]) {
      if (to >= longest && all.length > 1) break;
      to = power * digit;
      all.push(to);
    }
  }
  const isLong = all.length > 9;
  const ticks = all.filter((value) => !isLong || Math.abs(Math.log10(value) % 1) < 1e-9 || Math.abs(Math.log10(value) % 1) > 1 - 1e-9);
  return { ticks, place: (value) => Math.log(Math.max(value, from) / from) / Math.log(to / from) };
}

/** Calls again where the width changes; the first time at once. */
function whenSized(holder, draw) {
  let width = 0;
  const check = () => {
    if (holder.clientWidth > 0 && holder.clientWidth !== width) {
      width = holder.clientWidth;
      draw(width);
    }
  };
  if (holder.observer) holder.observer.disconnect();
  holder.observer = new ResizeObserver(check);
  holder.observer.observe(holder);
  check();
}

/**
 * Lines over an axis; pointing at it shows the values of all of them.
 *
 * chart: {height, series: [{title, colour, dash, points: [[x, y|null]]}], end: last x, ticks: width => [[x, label]],
 * shade: x up to which it is shaded, isLogarithmic, isTime, unitSize: of an axis that is no time, text: y => text, tipTitle: x => text,
 * hasRatio, isNearest: values are not taken from between points, label}
 */
function lineChart(holder, chart) {
  whenSized(holder, (width) => drawLines(holder, chart, width));
}

function drawLines(holder, chart, width) {
  const values = chart.series.flatMap((one) => one.points.map((point) => point[1])).filter((value) => value !== null);
  const positive = values.filter((value) => value > 0);
  const longest = Math.max(...positive, chart.least ?? 1e-9);
  const scale = chart.isLogarithmic && positive.length > 0
    ? logScale(Math.min(...positive), longest)
    : linearScale(longest, chart.height < 250 ? 3 : 6, chart.isTime ? timeUnit(longest)[1] : chart.unitSize ?? 1);
  const box = { left: 62, right: 14, top: 10, bottom: 26 };
  const [right, bottom] = [width - box.right, chart.height - box.bottom];
  const x = (value) => box.left + (value / chart.end) * (right - box.left);
  const y = (value) => bottom - scale.place(value) * (bottom - box.top);
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${chart.height}`, height: chart.height, role: "img", "aria-label": chart.label });
  if (chart.shade > 0) {
    drawing.append(shape("rect", { x: x(0), y: box.top, width: x(Math.min(chart.shade, chart.end)) - x(0), height: bottom - box.top, fill: "var(--shade)" }));
  }
  for (const value of scale.ticks) {
    const at = y(value);
    drawing.append(shape("line", { x1: box.left, x2: right, y1: at, y2: at, stroke: "var(--grid)" }));
    drawing.append(shape("text", { x: box.left - 8, y: at + 4, "text-anchor": "end" }, value === 0 ? "0" : plain(chart.text(value))));
  }
  for (const [value, text] of chart.ticks(right - box.left)) {
    drawing.append(shape("line", { x1: x(value), x2: x(value), y1: box.top, y2: bottom, stroke: "var(--grid)" }));
    drawing.append(shape("text", { x: x(value), y: bottom + 18, "text-anchor": "middle" }, text));
  }
  for (const one of [...chart.series].reverse()) {
    drawing.append(shape("path", {
      d: pathOf(one.points, x, y), fill: "none", stroke: one.colour, "stroke-width": 2, "stroke-linejoin": "round",
      "stroke-linecap": "round", "stroke-dasharray": one.dash ?? "none",
    }));
  }
  const tip = element("div", { class: "tip" });
  holder.replaceChildren(drawing, tip);
  readOff(holder, drawing, tip, chart, { x, y, box, right, bottom, width });
}

function pathOf(points, x, y) {
  let path = "";
  let isBroken = true;
  points.forEach(([at, value], index) => {
    if (value === null) { isBroken = true; return; }
    path += `${isBroken ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    // One point alone would not be seen.
    if (isBroken && (points[index + 1]?.[1] ?? null) === null) path += "h0.1";
    isBroken = false;
  });
  return path;
}

function readOff(holder, drawing, tip, chart, { x, y, box, right, bottom, width }) {
  const line = shape("line", { y1: box.top, y2: bottom, stroke: "var(--quiet)", "stroke-dasharray": "3 3", visibility: "hidden" });
  const marks = chart.series.map((one) => shape("circle", { r: 4, fill: one.colour, stroke: "var(--card)", "stroke-width": 1.5, visibility: "hidden" }));
  drawing.append(line, ...marks);
  const hide = () => {
    tip.style.display = "none";
    for (const mark of [line, ...marks]) mark.setAttribute("visibility", "hidden");
  };
  const show = (event) => {
    const left = event.clientX - drawing.getBoundingClientRect().left;
    if (left < box.left || left > right || chart.series.length === 0) { hide(); return; }
    const at = ((left - box.left) / (right - box.left)) * chart.end;
    line.setAttribute("x1", left);
    line.setAttribute("x2", left);
    line.setAttribute("visibility", "visible");
    const found = chart.series.map((one) => valueAt(one.points, at, chart.isNearest));
    const rows = chart.series.map((one, index) => {
      const value = found[index];
      marks[index].setAttribute("visibility", value === null ? "hidden" : "visible");
      if (value !== null) {
        marks[index].setAttribute("cx", left);
        marks[index].setAttribute("cy", y(value));
      }
      const ratio = chart.hasRatio && index > 0 && value !== null && found[0] > 0 ? `${ratioText(value / found[0])}×` : "";
      return element("tr", {},
        element("td", {}, element("span", { class: "key", style: `background:${one.colour}` })),
        element("td", { class: "title" }, one.title),
        element("td", { class: "number" }, value === null ? "–" : chart.text(value)),
        chart.hasRatio ? element("td", { class: "number quiet" }, ratio) : null);
    });
    tip.replaceChildren(element("div", { class: "quiet" }, chart.tipTitle(at)), element("table", {}, ...rows));
    tip.style.display = "block";
    const isRight = left > width / 2;
    tip.style.left = isRight ? "auto" : `${left + 14}px`;
    tip.style.right = isRight ? `${width - left + 14}px` : "auto";
    tip.style.top = `${box.top + 6}px`;
  };
  drawing.addEventListener("pointermove", show);
  drawing.addEventListener("pointerdown", show);
  drawing.addEventListener("pointerleave", hide);
}

/** Between two points on the line between them; or the value of the last point that is not beyond. */
function valueAt(points, at, isNearest) {
  const after = points.findIndex((point) => point[0] >= at);
  if (after === 0) return points[0][1];
  if (after < 0) return isNearest && points.length > 0 ? points[points.length - 1][1] : null;
  const [before, next] = [points[after - 1], points[after]];
  if (isNearest || before[1] === null || next[1] === null || next[0] === before[0]) {
    return at - before[0] <= next[0] - at ? before[1] : next[1];
  }
  return before[1] + ((next[1] - before[1]) * (at - before[0])) / (next[0] - before[0]);
}

const RAMPS = {
  light: [[226, 236, 246], [150, 190, 222], [60, 130, 190], [60, 60, 140], [40, 12, 70]],
  dark: [[30, 42, 62], [38, 84, 138], [50, 150, 170], [170, 205, 100], [255, 240, 150]],
};

function rampColour(ramp, part) {
  const at = Math.min(Math.max(part, 0), 1) * (ramp.length - 1);
  const index = Math.min(Math.floor(at), ramp.length - 2);
  const mixed = ramp[index].map((from, channel) => Math.round(from + (ramp[index + 1][channel] - from) * (at - index)));
  return `rgb(${mixed.join(",")})`;
}

/**
 * Messages by time and latency.
 *
 * chart: {height, starts, seconds, heat: [[[row, count]]], rowsPerDecade, firstRow, lastRow, most: most messages a second in a
 * cell, end, shade, ticks, isDark, label}
 */
function heatMap(holder, chart) {
  whenSized(holder, (width) => {
    const box = { left: 62, right: 14, top: 8, bottom: 26 };
    const [right, bottom] = [width - box.right, chart.height - box.bottom];
    const rows = chart.lastRow - chart.firstRow + 1;
    const x = (value) => box.left + (value / chart.end) * (right - box.left);
    const y = (row) => bottom - ((row - chart.firstRow) / rows) * (bottom - box.top);
    const canvas = element("canvas", { role: "img", "aria-label": chart.label });
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = chart.height * ratio;
    canvas.style.height = `${chart.height}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const ramp = chart.isDark ? RAMPS.dark : RAMPS.light;
    chart.heat.forEach((cells, index) => {
      const [from, to] = [x(chart.starts[index]), x(chart.starts[index] + chart.seconds[index])];
      for (const [row, count] of cells) {
        const part = Math.log1p(count / Math.max(chart.seconds[index], 1e-9)) / Math.log1p(chart.most);
        context.fillStyle = rampColour(ramp, part);
        context.fillRect(from, y(row + 1), Math.max(to - from, 1) + 0.4, y(row) - y(row + 1) + 0.4);
      }
    });
    const styles = getComputedStyle(document.documentElement);
    context.fillStyle = styles.getPropertyValue("--shade");
    if (chart.shade > 0) context.fillRect(x(0), box.top, x(Math.min(chart.shade, chart.end)) - x(0), bottom - box.top);
    context.fillStyle = styles.getPropertyValue("--quiet");
    context.strokeStyle = styles.getPropertyValue("--line");
    context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    context.strokeRect(box.left, box.top, right - box.left, bottom - box.top);
    context.textAlign = "right";
    for (let decade = Math.ceil(chart.firstRow / chart.rowsPerDecade); decade * chart.rowsPerDecade <= chart.lastRow; decade += 1) {
      context.fillText(plain(timeText(10 ** decade)), box.left - 8, y(decade * chart.rowsPerDecade) + 4);
      context.fillRect(box.left - 4, y(decade * chart.rowsPerDecade), 4, 1);
    }
    context.textAlign = "center";
    for (const [value, text] of chart.ticks(right - box.left)) context.fillText(text, x(value), bottom + 18);
    holder.replaceChildren(canvas);
  });
}
