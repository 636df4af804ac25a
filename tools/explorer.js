"use strict";

// ---- What is computed. A code is an array of packed bytes, its first bit the highest of the first byte. ----

const POPCOUNT = Uint8Array.from({length: 256}, (_, byte) => {
  let ones = 0;
  for (; byte; byte >>= 1) ones += byte & 1;
  return ones;
});

/** n codes of `bits` bits, from base64 of their bytes: {bytes, width, n}. */
function unpack(text, bits) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const width = Math.ceil(bits / 8);
  return {bytes, width, n: bytes.length / width};
}

/** The bits of a row, 0 or 1 each. */
function bitsOf(codes, row, bits) {
  return Array.from({length: bits}, (_, k) => (codes.bytes[row * codes.width + (k >> 3)] >> (7 - (k & 7))) & 1);
}

/** In how many of its first bits each code differs from a query: an array of 0 and 1, used as far as it goes. */
function distances(query, codes) {
  const asked = new Uint8Array(codes.width), mask = new Uint8Array(codes.width);
  query.forEach((bit, k) => {
    mask[k >> 3] |= 128 >> (k & 7);
    if (bit) asked[k >> 3] |= 128 >> (k & 7);
  });
  const found = new Uint16Array(codes.n);
  for (let row = 0, at = 0; row < codes.n; row++)
    for (let i = 0; i < codes.width; i++, at++) found[row] += POPCOUNT[(codes.bytes[at] ^ asked[i]) & mask[i]];
  return found;
}

/** How many images are at each distance 0..bits, and how many of them are right. */
function histograms(found, right, bits) {
  const all = new Array(bits + 1).fill(0), relevant = new Array(bits + 1).fill(0);
  found.forEach((distance, row) => {
    all[distance] += 1;
    relevant[distance] += right[row] ? 1 : 0;
  });
  return {all, relevant};
}

/** Average precision of one query over the whole database: its mean, worst and best over all orders of ties.
 *
 * The closed form is that of hhlib.metrics.precision: with N images before a group of n, R right ones before its r.
 */
function averagePrecision({all, relevant}) {
  const total = all.reduce((a, b) => a + b, 0), wanted = relevant.reduce((a, b) => a + b, 0);
  if (!wanted) return {expected: 0, worst: 0, best: 0};
  const H = new Float64Array(total + 1);
  for (let i = 1; i <= total; i++) H[i] = H[i - 1] + 1 / i;
  const first = (N, R, m) => m + (R - N) * (H[N + m] - H[N]); // right ones at ranks N+1 .. N+m
  const sums = {expected: 0, worst: 0, best: 0};
  let N = 0, R = 0;
  all.forEach((n, t) => {
    const r = relevant[t], D = H[N + n] - H[N], pairs = (r - 1) / Math.max(n - 1, 1);
    sums.expected += (r / Math.max(n, 1)) * ((R + 1) * D + pairs * (n - (N + 1) * D));
    sums.best += first(N, R, r);
    sums.worst += first(N + n - r, R, r);
    N += n;
    R += r;
  });
  for (const name in sums) sums[name] = Math.min(1, sums[name] / wanted);
  return sums;
}

globalThis.explorer = {unpack, bitsOf, distances, histograms, averagePrecision}; // for tests and for the console

// ---- What is shown. ----

const $ = (id) => document.getElementById(id);
const SETS = JSON.parse($("held").textContent);
const MOST = 24; // pictures of a group that are shown at first
const ENOUGH = 60; // pictures after which no further group is shown

let held, query, code, original, used, opened, current;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function scoreOf(bits, row) {
  const right = held.database.classes.map((number) => number === held.query.classes[row]);
  const found = distances(bits, held.databaseCodes);
  const histogram = histograms(found, right, bits.length);
  return {found, right, histogram, ap: averagePrecision(histogram)};
}

/** A picture from the sheet; its text is what it shows. `place` counts queries first, then database images. */
function picture(place, label) {
  const {columns} = held, x = place % columns, y = Math.floor(place / columns);
  const inner = element("span", {class: "sheet", style: `--x:${x};--y:${y}`});
  return element("span", {class: "picture", role: "img", "aria-label": label}, inner);
}

function chooseSet(number) {
  held = SETS[number];
  held.queryCodes = unpack(held.query.codes, held.bits);
  held.databaseCodes = unpack(held.database.codes, held.bits);
  const n = held.query.classes.length, rows = Math.ceil((n + held.database.classes.length) / held.columns);
  $("sheets").textContent = `.sheet{background-image:url(${held.sheet});--columns:${held.columns};--rows:${rows}}`;
  $("used").max = held.bits;
  const scored = Array.from({length: n}, (_, row) => [scoreOf(bitsOf(held.queryCodes, row, held.bits), row).ap.expected, row]);
  const mean = scored.reduce((sum, [ap]) => sum + ap, 0) / n;
  $("about").textContent = `${held.about} Mean of all these queries (mAP): ${mean.toFixed(3)}.`;
  scored.sort((a, b) => a[0] - b[0]);
  $("query").replaceChildren(...scored.map(([ap, row]) =>
    element("option", {value: row}, `${held.names[held.query.classes[row]]}, AP ${ap.toFixed(3)} (query ${row + 1})`)));
  used = held.bits;
  $("used").value = used;
  chooseQuery(scored[0][1]);
}

function chooseQuery(row) {
  query = row;
  $("query").value = row;
  original = bitsOf(held.queryCodes, row, held.bits);
  code = [...original];
  current = 0;
  opened = new Set();
  $("bits").replaceChildren(...code.map((_, k) => {
    const button = element("button", {type: "button", class: "bit"});
    button.addEventListener("click", () => toggle(k));
    button.addEventListener("focus", () => (current = k));
    return button;
  }));
  $("asked").replaceChildren(picture(row, `the query, ${held.names[held.query.classes[row]]}`),
    ` ${held.names[held.query.classes[row]]}`);
  show();
}

function toggle(k) {
  code[k] = 1 - code[k];
  current = k;
  show();
}

function showBits() {
  [...$("bits").children].forEach((button, k) => {
    const flipped = code[k] !== original[k], off = k >= used;
    button.textContent = code[k];
    button.className = `bit${flipped ? " flipped" : ""}${off ? " off" : ""}`;
    button.tabIndex = k === current ? 0 : -1;
    button.setAttribute("aria-label", `bit ${k + 1} is ${code[k]}${flipped ? ", flipped" : ""}${off ? ", not used" : ""}`);
  });
  const flips = code.filter((bit, k) => bit !== original[k]).length;
  $("flips").textContent = `${flips} flipped`;
  $("reset").disabled = !flips;
}

function showHistogram({all, relevant}) {
  const most = Math.max(...all), step = 100 / all.length, bars = [];
  all.forEach((n, t) => {
    const height = (60 * n) / most, right = (60 * relevant[t]) / most;
    if (!n) return;
    const at = {x: (t * step).toFixed(2), width: (0.85 * step).toFixed(2)};
    const title = `${t} bits: ${n} pictures, ${relevant[t]} right`;
    for (const [kind, y, h] of [["wrong", 60 - height, height - right], ["right", 60 - right, right]])
      bars.push(`<rect class="${kind}" x="${at.x}" width="${at.width}" y="${y}" height="${Math.max(h, 0)}"><title>${title}</title></rect>`);
  });
  $("histogram").innerHTML = bars.join("");
  $("last").textContent = `${all.length - 1}`;
}

function group(distance, rows, right) {
  const hits = rows.filter((row) => right[row]).length, all = rows.length <= MOST || opened.has(distance);
  const tied = rows.length === 1 ? "1 picture" : `${rows.length} pictures, tied, so in any order`;
  const list = element("ul", {class: "pictures"}, ...(all ? rows : rows.slice(0, MOST)).map((row) => {
    const name = held.names[held.database.classes[row]], good = right[row];
    const shown = picture(held.query.classes.length + row, name);
    return element("li", {class: good ? "good" : "bad"}, shown, element("span", {}, `${good ? "✓" : "✗"} ${name}`));
  }));
  const made = element("section", {}, element("h3", {}, `${distance} bit${distance === 1 ? "" : "s"} away`),
    element("p", {}, `${tied}; ${hits} right.`), list);
  if (!all) {
    const more = element("button", {type: "button"}, `show all ${rows.length}`);
    more.addEventListener("click", () => {
      opened.add(distance);
      show();
    });
    made.append(more);
  }
  return made;
}

function show() {
  const {found, right, histogram, ap} = scoreOf(code.slice(0, used), query);
  showBits();
  $("usedNow").textContent = `${used} of ${held.bits}`;
  for (const name in ap) $(name).textContent = ap[name].toFixed(3);
  showHistogram(histogram);
  const groups = histogram.all.map(() => []);
  found.forEach((distance, row) => groups[distance].push(row));
  const shown = [];
  let count = 0, nearest = -1;
  for (let t = 0; t < groups.length && count < ENOUGH; t++) {
    if (!groups[t].length) continue;
    if (nearest < 0) nearest = t;
    shown.push(group(t, groups[t], right));
    count += groups[t].length;
  }
  const rest = found.length - count;
  if (rest > 0) shown.push(element("p", {}, `${rest} more pictures are farther away.`));
  $("found").replaceChildren(...shown);
  const first = groups[nearest];
  $("said").textContent = `Expected average precision ${ap.expected.toFixed(3)}. Nearest: ${first.length} ` +
    `picture${first.length === 1 ? "" : "s"} at ${nearest} bits, ${histogram.relevant[nearest]} right.`;
}

$("bits").addEventListener("keydown", (event) => {
  const places = [...$("bits").children].map((button) => button.offsetTop);
  const row = places.filter((top) => top === places[0]).length; // bits in a row of the screen
  const steps = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row, Home: -current, End: held.bits - 1 - current};
  if (!(event.key in steps)) return;
  event.preventDefault();
  current = Math.min(held.bits - 1, Math.max(0, current + steps[event.key]));
  showBits();
  $("bits").children[current].focus();
});
$("set").replaceChildren(...SETS.map((each, number) => element("option", {value: number}, each.name)));
$("set").addEventListener("change", (event) => chooseSet(Number(event.target.value)));
$("query").addEventListener("change", (event) => chooseQuery(Number(event.target.value)));
$("reset").addEventListener("click", () => {
  code = [...original];
  show();
});
$("used").addEventListener("input", (event) => {
  used = Number(event.target.value);
  show();
});
chooseSet(0);
