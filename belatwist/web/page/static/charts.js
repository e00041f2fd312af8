// The charts of the last minutes or hours, from the device's own database.
import { clock, deviceTime, duration, element, get, refreshRates, samples, show, suggest, zone } from "./page.js";

const UPLOT = "uplot-1.6.32.min";

// By the seconds shown: the seconds of one point, and of one request. A long range is loaded in
// pieces, the latest first.
const RANGES = {
  900: { step: 10, piece: 900 },
  7200: { step: 60, piece: 7200 },
  86400: { step: 480, piece: 14400 },
};
const LINES = 8; // A chart with more lines is not readable.
const HEIGHT = 170;

const CHARTS = [
  { title: "Sending", name: "network.tx_bytes_total", tag: "interface", show: show.bits, times: 8, low: 0 },
  { title: "Receiving", name: "network.rx_bytes_total", tag: "interface", show: show.bits, times: 8, low: 0 },
  { title: "Temperature", name: "cpu.temperature", band: true, show: show.celsius, tenths: true },
  { title: "CPU, all cores", name: "cpu.usage_percent", filter: '{core="all"}', band: true, show: show.percent, low: 0, high: 100 },
  { title: "Memory used", name: "memory.used_bytes", band: true, show: show.bytes, low: 0, binary: true },
  { title: "Disk, written", name: "disk.write_bytes_total", tag: "device", show: show.speed, low: 0 },
  { title: "Disk, read", name: "disk.read_bytes_total", tag: "device", show: show.speed, low: 0 },
  { title: "Waiting for upload", name: "storage.metrics_pending_upload", band: true, show: show.count, low: 0 },
];

// The smallest step of an axis is the precision of its numbers; otherwise two ticks would show the same.
const WHOLE = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((one) => one * 10 ** power)).flat();
const TENTHS = [0.1, 0.2, 0.5, ...WHOLE];
const BINARY = Array.from({ length: 50 }, (_, power) => 2 ** power);

const $ = (selector) => document.querySelector(selector);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let range = 900;
let known = new Map(); // Series by name and tags: {name, tags, points: Map of time to [min, avg, max]}
let until = 0; // The points before this time, of the device's clock, are complete.
let loading = null;
let due = 0;

/** Loads the library; the page has loaded everything more urgent before. */
export async function load() {
  const sheet = element("link");
  sheet.rel = "stylesheet";
  sheet.href = `page/${UPLOT}.css`;
  const script = element("script");
  script.src = `page/${UPLOT}.js`;
  await new Promise((resolve, reject) => {
    script.onload = resolve;
    script.onerror = () => reject(new Error("the charting library cannot be loaded"));
    document.head.append(sheet, script);
  });
  for (const input of document.querySelectorAll("input[name=range]")) {
    input.addEventListener("change", () => choose(Number(input.value)));
    if (input.checked) range = Number(input.value); // A browser may restore it.
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(true));
  new ResizeObserver(() => {
    for (const chart of CHARTS) chart.plot?.setSize({ width: width(chart), height: HEIGHT });
  }).observe($("#plots"));
}

function choose(seconds) {
  range = seconds;
  loading?.abort();
  loading = null;
  until = due = 0;
  refresh();
}

/** Loads the new points, if they are due. */
export async function refresh() {
  if (loading || performance.now() < due) return;
  const mine = (loading = new AbortController());
  const { step, piece } = RANGES[range];
  const end = Math.ceil(deviceTime() / step) * step;
  const begin = end - range;
  // After the device's clock was set, its past is elsewhere.
  const anew = !until || until > end || until < begin;
  try {
    if (anew) {
      known = new Map();
      say("Loading…");
      $("#points").textContent = `A point is the mean of ${duration(step)}; times are in ${zone()}.`;
    }
    // The last point was incomplete.
    const from = anew ? begin : until - step;
    for (let late = end; late > from; late -= piece) {
      // Lines without a band need only the mean, a third of the data. New points are few, so one
      // request has them all.
      const groups = anew ? [CHARTS.filter((one) => !one.band), CHARTS.filter((one) => one.band)] : [CHARTS];
      for (const charts of groups) await add(charts, Math.max(from, late - piece), late, step, mine.signal);
      draw(anew && late === end, begin, end, step);
      if (anew && late - piece > from) say(`Loading… ${Math.round((100 * (end - late + piece)) / range)} %`);
    }
    until = end;
    forget(begin);
    say(known.size ? "" : "No samples are stored of this time.");
    due = performance.now() + 1000 * Math.max(5, Math.min(step, 60));
  } catch (error) {
    if (mine.signal.aborted) return;
    say(`The charts cannot be loaded: ${error.message}. Retrying.`);
    due = performance.now() + 10000;
  } finally {
    if (loading === mine) loading = null;
  }
}

function say(text) {
  if ($("#progress").textContent !== text) $("#progress").textContent = text;
}

function selectors(charts) {
  return charts.flatMap((chart) => {
    // With too many interfaces for one request, load those with the most traffic.
    const all = chart.tag ? samples(chart.name) : [];
    if (all.length <= 12) return [chart.name + (chart.filter ?? "")];
    const most = all.sort((a, b) => b.value - a.value).slice(0, LINES);
    return most.map((one) => `${chart.name}{${chart.tag}=${JSON.stringify(one.tags[chart.tag])}}`);
  });
}

async function add(charts, start, end, step, signal) {
  const values = charts.some((one) => one.band) ? "min,avg,max" : "avg";
  const asked = new URLSearchParams({ start, end, step, values });
  for (const one of selectors(charts)) asked.append("series", one);
  const answer = await get(`api/v1/query_range?${asked}`, signal);
  for (const one of answer.series) {
    const id = `${one.name} ${JSON.stringify(one.tags)}`;
    const series = known.get(id) ?? { name: one.name, tags: one.tags, points: new Map() };
    known.set(id, series);
    one.times.forEach((time, i) => series.points.set(time, [one.min?.[i], one.avg[i], one.max?.[i]]));
    if (one.kind === "counter" && one.avg.length) suggest(one, one.avg.at(-1));
  }
  refreshRates();
}

function forget(begin) {
  for (const [id, series] of known) {
    for (const time of series.points.keys()) if (time < begin) series.points.delete(time);
    if (!series.points.size) known.delete(id);
  }
}

/** The drawn values of a point, and their labels. */
const BAND = [
  [1, "mean"],
  [2, "max"],
  [0, "min"],
];

let shown = null; // [begin, end, step]

function draw(anew, ...what) {
  shown = what.length ? what : shown;
  if (!shown) return;
  const [begin, end, step] = shown;
  const times = Array.from({ length: (end - begin) / step }, (_, i) => begin + i * step);
  for (const chart of CHARTS) {
    let all = [...known.values()].filter((one) => one.name === chart.name);
    all.forEach((one) => (one.most = Math.max(...[...one.points.values()].map((point) => point[1]))));
    if (all.length > LINES) all = all.sort((a, b) => b.most - a.most).slice(0, LINES);
    all.sort((a, b) => (a.tags[chart.tag] ?? "").localeCompare(b.tags[chart.tag] ?? "", "en", { numeric: true }));
    const lines = chart.band
      ? all.slice(0, 1).flatMap((one) => BAND.map(([which, label]) => ({ label, values: column(chart, one, which, times, step) })))
      : all.map((one) => ({ label: one.tags[chart.tag], values: column(chart, one, 1, times, step) }));
    const labels = lines.map((one) => one.label).join("\n");
    if (chart.plot && (anew || labels !== chart.labels)) {
      chart.plot.destroy();
      chart.plot = null;
    }
    if (chart.figure) chart.figure.hidden = !lines.length;
    if (!lines.length) continue;
    chart.labels = labels;
    chart.window = [begin, end];
    chart.latest = lines.map((one) => one.values.findLast((value) => value != null));
    const data = [times, ...lines.map((one) => one.values)];
    if (chart.plot) chart.plot.setData(data);
    else make(chart, lines, data);
    describe(chart, lines);
  }
}

/**
 * A line's values at the given times. If a collector runs less often than there are points, or was
 * late, the line continues: undefined. If nothing was collected, the line has a gap: null.
 */
function column(chart, { points }, which, times, step) {
  const present = times.filter((time) => points.has(time));
  let usual = Infinity;
  present.forEach((time, i) => (usual = i ? Math.min(usual, time - present[i - 1]) : usual));
  const longest = 3 * Math.max(step, usual === Infinity ? step : usual);
  let next = 0;
  return times.map((time) => {
    if (time === present[next]) {
      next += 1;
      return points.get(time)[which] * (chart.times ?? 1);
    }
    const hole = next && next < present.length ? present[next] - present[next - 1] : Infinity;
    return hole <= longest ? undefined : null;
  });
}

function make(chart, lines, data) {
  if (!chart.figure) {
    chart.figure = element("figure");
    const caption = element("figcaption", "", chart.figure);
    element("h3", chart.title, caption);
    element("p", "", caption);
    chart.canvas = element("div", "", chart.figure);
    chart.canvas.role = "img";
    // In the order of the list, whatever chart has data first.
    const after = CHARTS.slice(CHARTS.indexOf(chart) + 1).find((one) => one.figure);
    $("#plots").insertBefore(chart.figure, after?.figure ?? null);
  }
  const ink = style("--faint");
  const axis = { stroke: ink, font: "12px system-ui, sans-serif", grid: { stroke: style("--line"), width: 1 }, ticks: { show: false } };
  const series = lines.map(({ label }, number) => {
    const colour = style(`--c${chart.band ? 0 : number}`);
    const thin = chart.band && number > 0;
    return {
      label,
      stroke: thin ? `${colour}66` : colour,
      width: thin ? 1 : 1.5,
      dash: !chart.band && number > 3 ? [6, 3] : undefined,
      // A line of one point is invisible.
      points: { show: lines[number].values.filter((value) => value != null).length < 3 },
      // The latest value, unless the cursor is at a time.
      value: (_, value, line, index) => {
        const one = index == null ? chart.latest[line - 1] : value;
        return one == null ? "–" : chart.show(one);
      },
    };
  });
  const round = (value) => chart.show(value).replace(/\.?0+(?=\u00a0)/, (zeros) => (zeros[0] === "." ? "" : zeros));
  const options = {
    width: width(chart),
    height: HEIGHT,
    cursor: { drag: { setScale: false } },
    legend: { show: lines.length > 1 || matchMedia("(hover: hover)").matches },
    scales: {
      x: { time: true, range: () => chart.window },
      y: { range: (_, low, high) => bounds(chart, low, high) },
    },
    axes: [
      { ...axis, size: 26, space: 50, values: (_, ticks) => ticks.map((time) => clock(time)) },
      { ...axis, size: 74, space: 34, values: (_, ticks) => ticks.map(round), incrs: chart.binary ? BINARY : chart.tenths ? TENTHS : WHOLE },
    ],
    series: [{ label: "time", value: (_, time) => (time == null ? "latest" : clock(time)) }, ...series],
    bands: chart.band ? [{ series: [2, 3], fill: `${style("--c0")}22` }] : undefined,
  };
  chart.plot = new uPlot(options, data, chart.canvas);
}

function bounds(chart, low, high) {
  if (low == null) return [0, 1];
  const room = Math.max(0.08 * (high - low), chart.tenths ? 0.5 : 0) || 1;
  return [chart.low ?? low - room, chart.high ?? Math.max(high + room, (chart.low ?? -Infinity) + 1)];
}

// Before the first layout the width is 0.
const width = (chart) => Math.max(200, chart.canvas.clientWidth);

/** Describes a chart in words, for screen readers and for exact numbers. */
function describe(chart, lines) {
  const sum = (one) => one.reduce((all, value) => all + (value ?? 0), 0);
  const together = chart.band ? lines.slice(0, 1) : lines;
  const now = sum(chart.band ? chart.latest.slice(0, 1) : chart.latest);
  const most = chart.band
    ? Math.max(...lines[1].values.filter((value) => value != null))
    : Math.max(...lines[0].values.map((_, i) => sum(together.map((one) => one.values[i]))));
  const all = lines.length > 1 && !chart.band ? " in total" : "";
  const text = `latest ${chart.show(now)}${all}, maximum ${chart.show(most)}`;
  chart.figure.querySelector("p").textContent = text;
  chart.canvas.ariaLabel = `${chart.title}, chart: ${text}`;
}
