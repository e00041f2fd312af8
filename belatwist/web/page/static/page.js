// The verdict and the current figures: the first come with the page, further ones are polled while
// the tab is visible.
const EVERY_MS = 5000;
const FETCH_TIMEOUT_MS = 10000;
const TREND_SECONDS = 120;
const PAUSE_SECONDS = 60;

const { words, now: first } = JSON.parse(document.getElementById("first").textContent);
const byName = new Intl.Collator("en", { numeric: true }).compare;
const last = new Map(); // Series by their key: the last sample, and the rate since the one before.
const backlog = []; // [uptime in seconds, pending samples], of the last minutes.
let health = null;
let at = 0; // When health arrived, on this browser's monotonic clock.
let charts = null;
let timer = 0;
let asking = null;

const $ = (selector) => document.querySelector(selector);

export function element(tag, text = "", parent = null) {
  const made = document.createElement(tag);
  made.textContent = text;
  parent?.append(made);
  return made;
}

/** About three significant digits, and the unit. */
function scaled(value, units, base) {
  let power = 0;
  while (Math.abs(value) >= base * 0.9995 && power < units.length - 1) {
    value /= base;
    power += 1;
  }
  const digits = value === 0 || Math.abs(value) >= 100 || power === 0 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)}\u00a0${units[power]}`;
}

export const show = {
  bits: (bits) => scaled(bits, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"], 1000),
  bytes: (bytes) => scaled(bytes, ["B", "KiB", "MiB", "GiB", "TiB"], 1024),
  speed: (bytes) => scaled(bytes, ["B/s", "kB/s", "MB/s", "GB/s"], 1000),
  percent: (value) => `${value.toFixed(value < 9.95 && value > 0 ? 1 : 0)}\u00a0%`,
  celsius: (value) => `${value.toFixed(1)}\u00a0°C`,
  count: (value) => Math.round(value).toLocaleString("en"),
};

export function duration(seconds) {
  if (seconds < 100) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(seconds < 36000 ? 1 : 0)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** A time of day of 24 hours, in this browser's zone. */
export const clock = (time, seconds = undefined) =>
  new Date(time * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: seconds && "2-digit" });

/** The short name of this browser's zone. */
export const zone = () =>
  new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts().find((one) => one.type === "timeZoneName").value;

/** The device's time, which may differ from this machine's: seconds since 1970. */
export function deviceTime() {
  return Date.parse(health.timestamp) / 1000 + (performance.now() - at) / 1000;
}

const age = (time) => deviceTime() - Date.parse(time) / 1000;

export async function get(path, signal = null) {
  const signals = [AbortSignal.timeout(FETCH_TIMEOUT_MS), ...(signal ? [signal] : [])];
  // Not relative to the page: its own address may hold a password, which fetch() refuses.
  const url = new URL(path, location.origin + location.pathname);
  const answer = await fetch(url, { cache: "no-store", signal: AbortSignal.any(signals) });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ?? `status ${answer.status}`);
  return body;
}

function setText(node, text) {
  // Setting the same text again would make a screen reader repeat it.
  if (node.textContent !== text) node.textContent = text;
}

/** Hides a tile without a text. */
function tile(id, text, more = "") {
  const [main, rest] = $(`#${id}`).querySelectorAll("dd");
  $(`#${id}`).hidden = !text;
  setText(main, text ?? "");
  setText(rest, more ?? "");
}

export const key = (one) => `${one.name} ${JSON.stringify(one.tags)}`;

/** The last samples of a metric, sorted by a tag. */
export function samples(name, tag = "") {
  const found = [...last.values()].filter((one) => one.name === name);
  return found.sort((a, b) => byName(a.tags[tag] ?? "", b.tags[tag] ?? ""));
}

function remember(list) {
  const before = new Map(last);
  last.clear();
  for (const one of list) {
    const old = before.get(key(one));
    one.rate = old?.rate;
    if (old && one.time > old.time) {
      const rise = one.value - old.value;
      one.rate = (rise < 0 ? one.value : rise) / (one.time - old.time);
    }
    last.set(key(one), one);
  }
}

/** A rate from the charts, while there is only one sample. */
export function suggest(one, rate) {
  const known = last.get(key(one));
  if (known && known.rate === undefined) known.rate = rate;
}

function showVerdict() {
  const verdict = $("#verdict");
  verdict.className = health.status;
  setText($("#word"), words[health.status]);
  document.title = `${words[health.status]} – ${health.device_id}`;
  const list = $("#reasons");
  if ([...list.children].map((one) => one.textContent).join("\n") !== health.reasons.join("\n")) {
    list.replaceChildren(...health.reasons.map((reason) => element("li", reason)));
  }
}

function showUplinks() {
  const body = $("#uplinks tbody");
  const sent = samples("network.tx_bytes_total", "interface");
  $("#uplinks").hidden = !sent.length;
  const sums = [0, 0, 0];
  const rows = sent.map(({ tags }, number) => {
    const row = body.rows[number] ?? element("tr");
    while (row.cells.length < 4) element(row.cells.length ? "td" : "th", "", row);
    row.cells[0].scope = "row";
    setText(row.cells[0], tags.interface);
    const of = (name) => last.get(key({ name: `network.${name}_total`, tags }));
    [of("tx_bytes")?.rate, of("rx_bytes")?.rate].forEach((rate, column) => {
      sums[column] += rate ?? NaN;
      setText(row.cells[column + 1], rate === undefined ? "…" : show.bits(8 * rate));
      row.cells[column + 1].className = rate === 0 ? "nothing" : "";
    });
    const errors = (of("tx_errors")?.value ?? 0) + (of("rx_errors")?.value ?? 0);
    sums[2] += errors;
    setText(row.cells[3], show.count(errors));
    row.cells[3].className = errors ? "" : "nothing";
    return row;
  });
  if (rows.length !== body.rows.length) body.replaceChildren(...rows);
  const total = $("#uplinks tfoot").rows[0].cells;
  setText(total[1], Number.isNaN(sums[0]) ? "…" : show.bits(8 * sums[0]));
  setText(total[2], Number.isNaN(sums[1]) ? "…" : show.bits(8 * sums[1]));
  setText(total[3], show.count(sums[2]));
}

function showDevice() {
  const value = (name) => samples(name)[0]?.value;
  $("#device").hidden = false;
  const zones = samples("thermal.zone_temp", "zone");
  const hottest = value("cpu.temperature");
  const named = zones.map((one) => `${one.tags.zone.replace(/[-_]thermal$/, "")} ${Math.round(one.value)}`);
  tile("temperature", hottest !== undefined && show.celsius(hottest), named.join(", "));

  const [used, total, swap] = ["used", "total", "swap_used"].map((one) => value(`memory.${one}_bytes`));
  tile(
    "memory",
    total && show.percent((100 * used) / total),
    total && `${show.bytes(used)} of ${show.bytes(total)}${swap ? `, ${show.bytes(swap)} swapped` : ""}`,
  );

  const sum = (name) => samples(name).reduce((all, one) => all + (one.rate ?? NaN), 0);
  const [read, written] = [sum("disk.read_bytes_total"), sum("disk.write_bytes_total")];
  const busy = Math.max(...samples("disk.io_time_ms_total").map((one) => one.rate / 10));
  tile(
    "disk",
    samples("disk.write_bytes_total").length && (Number.isNaN(written) ? "…" : show.speed(written)),
    Number.isNaN(read) ? "written" : `written; ${show.speed(read)} read${busy >= 0 ? `; ${show.percent(busy)} busy` : ""}`,
  );

  showFilesystems();

  const cores = samples("cpu.usage_percent", "core");
  const all = cores.find((one) => one.tags.core === "all");
  const load = ["1m", "5m", "15m"].map((one) => value(`system.load_${one}`)?.toFixed(2));
  const up = value("system.uptime_seconds");
  tile(
    "cpu",
    all && show.percent(all.value),
    [load[0] && `load ${load.join(" ")}`, up && `up for ${duration(up)}`].filter(Boolean).join("; "),
  );
  showCores(cores.filter((one) => one !== all));
}

function showFilesystems() {
  const of = (name) => samples(`filesystem.${name}`, "mountpoint");
  const left = of("available_bytes");
  const shares = of("used_bytes").map(({ value }, number) => value / (value + left[number]?.value) || 0);
  const most = Math.max(...shares); // As df counts it.
  const fullest = left[shares.indexOf(most)];
  const more = of("readonly").filter((one) => one.value).map((one) => `${one.tags.mountpoint} is read-only`);
  if (fullest) more.unshift(`${fullest.tags.mountpoint} has ${show.bytes(fullest.value)} left`);
  tile("filesystems", fullest && show.percent(100 * most), more.join("; "));
}

function showCores(cores) {
  const list = $("#cores");
  while (list.children.length > cores.length) list.lastChild.remove();
  cores.forEach((one, number) => {
    let row = list.children[number];
    if (!row) {
      row = element("li", "", list);
      element("span", "", row);
      const bar = element("i", "", row);
      bar.ariaHidden = "true";
      element("b", "", bar);
    }
    setText(row.firstChild, `${one.tags.core}: ${show.percent(one.value)}`);
    row.querySelector("b").style.width = `${Math.min(100, one.value)}%`;
  });
}

/** Whether the pending samples are about those that were collected since the last upload. */
function isNew(pending) {
  const { collectors, uploader, uptime_seconds: seconds } = health;
  if (uploader.status !== "ok" || uploader.last_error || !uploader.last_upload) return false;
  const collected = Object.values(collectors).reduce((sum, one) => sum + one.metrics_collected, 0);
  // Those counts exclude the agent's own metrics, which are collected all at once.
  return pending <= 200 + (1.25 * collected * (age(uploader.last_upload) + 10)) / Math.max(seconds, 1);
}

/**
 * Samples per second by which the backlog grows; null before there are enough points. Regular
 * uploads make its curve a sawtooth, so the lowest points are compared.
 */
function trend() {
  const begin = backlog[0][0];
  const span = backlog.at(-1)[0] - begin;
  if (span < 20) return null;
  const half = (late) => backlog.filter(([time]) => time - begin > span / 2 === late);
  const [early, late] = [half(false), half(true)].map((part) =>
    part.reduce((low, one) => (one[1] <= low[1] ? one : low)),
  );
  return (late[1] - early[1]) / (late[0] - early[0]);
}

function showBacklog(uploader, storage) {
  const pending = storage.metrics_pending_upload + storage.metrics_waiting;
  backlog.push([health.uptime_seconds, pending]);
  while (health.uptime_seconds - backlog[0][0] > TREND_SECONDS || health.uptime_seconds < backlog[0][0]) backlog.shift();
  const growth = trend();
  let more = "trend not known yet";
  if (!uploader.enabled) more = "uploads are switched off";
  else if (!pending) more = "everything is uploaded";
  else if (isNew(pending)) more = "only new samples";
  else if (growth !== null && growth < -1) more = `uploaded in about ${duration(pending / -growth)}`;
  else if (growth !== null && growth > 1) more = `growing by ${show.count(growth * 60)} per minute`;
  else if (growth !== null) more = "about constant";
  tile("backlog", `${show.count(pending)} samples`, more);
}

function showUploads() {
  const { uploader, storage } = health;
  if (storage.opening) tile("backlog", "…", `unknown: the database ${storage.opening}`);
  else showBacklog(uploader, storage);
  const failed = uploader.last_error ? `last attempt: ${uploader.last_error}` : "";
  tile("upload", uploader.last_upload ? `${duration(age(uploader.last_upload))} ago` : "none yet", failed);

  const { time } = health;
  const off = Math.abs(time.skew_ms ?? 0);
  const skew = time.skew_ms === null ? "not compared with the server yet" :
    `${off < 1000 ? `${off} ms` : duration(off / 1000)} ${time.skew_ms < 0 ? "behind" : "ahead of"} the server`;
  const sync = time.ntp_synced === null ? "" : time.ntp_synced ? "; synchronised" : "; not synchronised";
  const local = new Date(time.local);
  const today = local.toDateString() === new Date().toDateString();
  const day = today ? "" : `${local.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" })}, `;
  tile("clock", `${day}${clock(local / 1000)} ${zone()}`, (time.trusted ? "" : "not trusted: ") + skew + sync);
}

const STATES = {
  absent: "Not on this device",
  hidden: "Hidden from the agent",
  failing: "Fails",
};

/** A collector that is well shows its figures instead. */
function showSources() {
  const list = $("#sources dl");
  const tiles = [];
  for (const [name, { state, reason, cure, left_out: leftOut }] of Object.entries(health.collectors)) {
    const texts = [STATES[state], reason, cure && `What to do: ${cure}`, leftOut.length && `Left out: ${leftOut.join(", ")}`];
    const said = texts.filter(Boolean);
    if (said.length) tiles.push([name, state, ...said]);
  }
  $("#sources").hidden = !tiles.length;
  if (list.dataset.shown === JSON.stringify(tiles)) return;
  list.dataset.shown = JSON.stringify(tiles);
  list.replaceChildren(
    ...tiles.map(([name, state, ...said]) => {
      const tile = element("div");
      tile.className = state ?? "";
      element("dt", name, tile);
      for (const text of said) element("dd", text, tile);
      return tile;
    }),
  );
}

function showAll(now) {
  // After a pause, the mean rate of that pause is not the current rate.
  if (health && Math.abs(now.health.uptime_seconds - health.uptime_seconds) > PAUSE_SECONDS) last.clear();
  health = now.health;
  at = performance.now();
  remember(now.samples);
  showVerdict();
  showUplinks();
  showDevice();
  showUploads();
  showSources();
}

async function ask() {
  clearTimeout(timer);
  const mine = (asking = new AbortController());
  let now = null;
  let problem = "";
  try {
    now = await get("api/v1/now", mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return;
    const since = clock((Date.now() - (performance.now() - at)) / 1000, true);
    problem = `The device does not answer (${error.message}). The values below are from ${since}.`;
  }
  timer = setTimeout(ask, EVERY_MS);
  setText($("#silent"), problem);
  $("#silent").hidden = !problem;
  document.body.classList.toggle("old", Boolean(problem));
  if (now) {
    showAll(now);
    charts?.refresh();
  }
}

async function loadCharts() {
  const module = await import("./charts.js");
  await module.load();
  charts = module;
  charts.refresh();
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (document.hidden) asking?.abort();
  else ask();
});

export const refreshRates = () => {
  showUplinks();
  showDevice();
};

showAll(first);
if (!document.hidden) timer = setTimeout(ask, EVERY_MS);
$("#charts").hidden = false;
loadCharts().catch((error) => setText($("#progress"), `No charts: ${error.message}`));
