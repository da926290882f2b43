"use strict";
// The page of one node: a websocket tells each session's snapshot and then what happens; this draws it, twice a second.

const LANES = ["text", "audio", "vision"];
const SHOWN_S = 300; // of final scores
const BINS = 16;
const REDRAW_MS = 500;
const sessions = new Map();
let chosen = null;
let node = { picture: false };
let dirty = false;
const $ = (id) => document.getElementById(id);
const seconds = (value) => value.toFixed(2) + " s";
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
const tone = (value) => (value > 0.25 ? "positive" : value < -0.25 ? "negative" : "neutral");

function session(name) {
  if (!sessions.has(name)) sessions.set(name, { about: {}, finals: [], provisional: [], newest: null, utterances: [], events: [] });
  return sessions.get(name);
}

function take(message) {
  if (message.type === "node") { node = message; return; }
  const found = session(message.session);
  if (message.type === "session") {
    const provisional = message.newest && message.newest.kind === "provisional" ? [message.newest] : [];
    Object.assign(found, { about: message, finals: message.scores, provisional, newest: message.newest, utterances: message.utterances, events: message.events });
    offer();
  } else if (message.type === "state") {
    found.about.state = message.state;
    found.about.modalities = message.modalities;
  } else if (message.type === "score") {
    found.newest = message;
    if (message.kind === "final") {
      found.finals.push(message);
      const begin = message.t_end_s - SHOWN_S;
      while (found.finals[0].t_end_s < begin) found.finals.shift();
      found.provisional = found.provisional.filter((each) => each.seq > message.seq);
    } else {
      found.provisional = found.provisional.filter((each) => each.seq !== message.seq);
      found.provisional.push(message);
    }
  } else if (message.type === "utterance") {
    found.utterances.push(message);
  } else if (message.type === "event") {
    found.events.push(message);
    found.events = found.events.slice(-20);
  }
  if (message.session === chosen) dirty = true;
}

function offer() {
  const select = $("sessions");
  const names = [...sessions.keys()];
  if (chosen === null) choose(names[0]);
  select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  $("choice").hidden = names.length < 2;
  $("main").hidden = false;
  dirty = true;
}

function choose(name) {
  chosen = name;
  const path = "sessions/" + encodeURIComponent(name) + "/";
  $("csv").href = path + "summary.csv";
  $("json").href = path + "summary.json";
  $("picture-section").hidden = !node.picture;
  if (node.picture) $("picture").src = path + "picture";
  dirty = true;
}

function draw() {
  if (!dirty || chosen === null) return;
  dirty = false;
  const found = sessions.get(chosen);
  drawAbout(found);
  drawScore(found);
  drawLanes(found);
  drawWords(found);
  drawHealth(found);
  drawEvents(found);
  drawSummary(found);
  if (window.Plotly) { drawChart(found); drawMasks(found); }
}

function drawAbout({ about }) {
  const notes = [...(about.notices || [])];
  if (about.scripted) notes.unshift("This is a script with a synthetic voice and face, not a recording of anybody.");
  $("source").textContent = `${about.source} · ${about.state} · ${about.model} on ${about.device}`;
  fill($("notices"), notes.map((text) => item("li", text)));
}

function drawScore({ newest, finals }) {
  if (!newest) return;
  const value = newest.sentiment_smooth;
  $("number").textContent = signed(value);
  $("polarity").textContent = newest.polarity;
  $("value").className = tone(value);
  $("kind").textContent = newest.kind;
  $("uncertainty").textContent = `± ${newest.uncertainty.toFixed(1)} expected; window ends at ${seconds(newest.t_end_s)}`;
  const half = 50 * Math.min(1, Math.abs(value) / 3);
  Object.assign($("bar").style, { left: (value < 0 ? 50 - half : 50) + "%", width: half + "%" });
  $("bar").className = tone(value);
  const last = finals.at(-1);
  $("final-mark").hidden = !last;
  if (last) $("final-mark").style.left = `calc(${50 + (50 * last.sentiment_smooth) / 3}% - 1px)`;
}

function drawLanes({ newest, about }) {
  fill($("lanes"), LANES.map((lane) => {
    const condition = (about.modalities || {})[lane] || {};
    const scored = newest ? newest.modalities[lane] : {};
    const row = document.createElement("tr");
    const head = item("th", lane);
    head.scope = "row";
    const reason = condition.reason || (scored.reason || "").replaceAll("_", " ");
    const state = condition.status && condition.status !== "ok" ? condition.status : scored.status || "…";
    row.append(head, item("td", reason ? `${state}: ${reason}` : state),
      item("td", scored.weight === undefined ? "" : scored.weight.toFixed(2)),
      item("td", scored.age_ms == null ? "" : (scored.age_ms / 1000).toFixed(1) + " s"));
    return row;
  }));
}

function drawWords({ finals, provisional, newest }) {
  const box = $("words");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  const words = [];
  for (const score of finals) {
    for (const word of score.words) words.push(marked(word, score.sentiment, false));
  }
  if (newest && newest.kind === "provisional" && provisional.length) {
    for (const word of newest.words) words.push(marked(word, newest.sentiment, true));
  }
  fill(box, words.slice(-400).flatMap((word) => [word, " "]));
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function marked(word, sentiment, provisional) {
  const found = item("span", word);
  found.className = "word " + tone(sentiment) + (provisional ? " provisional" : "");
  found.title = (provisional ? "so far " : "") + signed(sentiment);
  return found;
}

function drawHealth({ newest }) {
  const rows = [];
  if (newest && newest.latency_ms) {
    rows.push([`latency (${newest.kind})`, newest.latency_ms.capture_to_publish.toFixed(0) + " ms"]);
    rows.push(["of it model", newest.latency_ms.model.toFixed(1) + " ms"]);
  }
  if (newest && newest.modalities.text.lag_ms != null) rows.push(["words behind", (newest.modalities.text.lag_ms / 1000).toFixed(1) + " s"]);
  for (const [lane, count] of Object.entries(newest ? newest.dropped : {})) rows.push([`${lane} dropped`, String(count)]);
  fill($("health"), rows.flatMap(([name, value]) => [item("dt", name), item("dd", value)]));
}

function drawEvents({ events }) {
  fill($("events"), events.slice(-20).reverse().map((each) => item("li", `${seconds(each.t_s)} ${each.event} ${each.part}: ${each.reason}`)));
}

function drawSummary({ finals, utterances, about }) {
  const last = utterances.at(-1);
  const ended = about.state === "ended" ? "The session has ended. " : "";
  const said = last ? ` The last utterance scored ${signed(last.sentiment)}: “${last.text}”` : "";
  $("summary").textContent = `${ended}${finals.length} final scores in the last ${SHOWN_S / 60} minutes, ${utterances.length} utterances.${said}`;
}

function drawChart({ finals, provisional }) {
  const x = finals.map((each) => each.t_end_s);
  const y = finals.map((each) => each.sentiment_smooth);
  const band = finals.map((each) => each.uncertainty);
  const after = [...provisional].sort((one, other) => one.seq - other.seq);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const accent = color("--accent");
  const traces = [
    { x: [...x, ...x.toReversed()], y: [...y.map((v, i) => Math.min(3, v + band[i])), ...y.map((v, i) => Math.max(-3, v - band[i])).toReversed()], fill: "toself", fillcolor: accent + "22", line: { width: 0 }, hoverinfo: "skip", name: "uncertainty", type: "scatter" },
    { x, y, mode: "lines", line: { color: accent, width: 2 }, name: "final", type: "scatter" },
    { x: after.map((each) => each.t_end_s), y: after.map((each) => each.sentiment_smooth), mode: "lines+markers", line: { color: accent, width: 1, dash: "dot" }, marker: { size: 4 }, name: "provisional", type: "scatter" },
  ];
  Plotly.react("chart", traces, layout({ yaxis: { range: [-3, 3], zeroline: true } }, color), { displayModeBar: false, responsive: true });
}

function drawMasks({ finals }) {
  const x = finals.map((each) => each.t_end_s);
  const names = LANES.flatMap((lane) => Array.from({ length: BINS }, (_, bin) => `${lane} ${bin + 1}`));
  const z = LANES.flatMap((lane) => Array.from({ length: BINS }, (_, bin) => finals.map((each) => (each.masks[lane] || [])[bin] ?? null)));
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const ticks = LANES.map((_, place) => place * BINS + BINS / 2 - 0.5);
  Plotly.react("masks", [{ x, y: names.map((_, place) => place), z, type: "heatmap", zmin: 0.25, zmax: 0.75, colorscale: "Viridis", colorbar: { thickness: 10, outlinewidth: 0 }, customdata: names, hovertemplate: "%{z:.2f} at %{x} s<extra></extra>" }],
    layout({ yaxis: { tickvals: ticks, ticktext: LANES, autorange: "reversed" } }, color), { displayModeBar: false, responsive: true });
}

function layout(more, color) {
  return { margin: { l: 48, r: 10, t: 6, b: 34 }, paper_bgcolor: "transparent", plot_bgcolor: "transparent", showlegend: false,
    font: { color: color("--text") }, xaxis: { title: { text: "seconds" }, gridcolor: color("--line") }, ...more,
    yaxis: { gridcolor: color("--line"), zerolinecolor: color("--quiet"), ...more.yaxis } };
}

function item(kind, text) {
  const found = document.createElement(kind);
  found.textContent = text;
  return found;
}

function fill(parent, children) {
  parent.replaceChildren(...children);
}

function connect(wait = 500) {
  const socket = new WebSocket(new URL("live", location.href).href.replace(/^http/, "ws"));
  socket.onopen = () => { wait = 500; say("live", false); };
  socket.onmessage = (event) => take(JSON.parse(event.data));
  socket.onclose = () => { say("not connected; trying again", true); setTimeout(connect, wait, Math.min(2 * wait, 10000)); };
}

function say(text, lost) {
  $("connection").textContent = text;
  $("connection").className = lost ? "lost" : "";
}

$("sessions").addEventListener("change", (event) => choose(event.target.value));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { dirty = true; });
setInterval(draw, REDRAW_MS);
connect();
