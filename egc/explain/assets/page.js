// What the page shows of the record, and how its parts are linked.
const data = JSON.parse(document.getElementById("data").textContent);
const record = data.record;
const byId = (id) => document.getElementById(id);
const short = (title) => title.replace(/^node /, "");
const unique = (list) => [...new Set(list)];

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const size = Math.abs(seconds);
  const [value, unit] = size >= 1 ? [seconds, "s"] : size >= 1e-3 ? [seconds * 1e3, "ms"] : [seconds * 1e6, "µs"];
  return `${Number(value.toPrecision(3))} ${unit}`;
}
const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const signed = (seconds) => (seconds === 0 ? "the same" : (seconds > 0 ? "+" : "−") + duration(Math.abs(seconds)));

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

// ---- the links between both graphs ----

const onnxOf = new Map();
record.onnx.forEach((node, i) => onnxOf.set(node.title, [...(onnxOf.get(node.title) || []), i]));
const covers = record.calls.map((call) => unique(call.onnx.flatMap((title) => onnxOf.get(title) || [])));
const rulesOf = record.calls.map((call) => unique([
  ...call.derivation.map((step) => record.steps[step].rule), ...call.fused_by,
  ...(call.kernel ? record.kernels[call.kernel].rules : []),
]));

const KINDS = [
  ["contract", /conv|matmul|gemm|attention|einsum/i], ["norm", /softmax|norm/i],
  ["window", /pool|reduce|argm|topk|cumulate|mean|sum/i],
  ["move", /transpose|reshape|concat|slice|pad|gather|scatter|expand|split|flatten|squeeze|iota|shape|cast/i],
];
const kindOf = (name) => (KINDS.find(([, pattern]) => pattern.test(name)) || ["map"])[0];

const total = record.calls.reduce((sum, call) => sum + (call.predicted || 0), 0);
const dearest = Math.max(...record.calls.map((call) => call.predicted || 0), 1e-30);
const kernelTitle = (call) => (call.kernel
  ? call.kernel.replace(/_[0-9a-f]{6,}$/, "").replace("conv_channels_last", "conv").replaceAll("_", " ") : "host");

const beforeBoxes = record.onnx.map((node) => ({
  title: node.op, sub: node.name || node.outputs[0] || "", kind: node.calls.length ? kindOf(node.op) : "gone", share: 0,
  hint: `${short(node.title)}\n${node.calls.length ? "" : `${node.fate}: ${node.by.join(", ")}`}`,
}));
const afterBoxes = record.calls.map((call, i) => ({
  title: kernelTitle(call), sub: `${i} · ${duration(call.predicted)}`, kind: call.kernel ? kindOf(kernelTitle(call)) : "host",
  share: (call.predicted || 0) / dearest, hint: `call ${i}: ${call.kernel || "host"}\n${call.onnx.map(short).join("\n")}`,
}));

let selected = null; // {kind: "call" | "onnx" | "rule", key}
let tab = "derivation";

const before = new GraphView(byId("before"), data.before, beforeBoxes,
  (i) => hover(i === null ? null : { kind: "onnx", key: i }), (i) => select(i === null ? null : { kind: "onnx", key: i }));
const after = new GraphView(byId("after"), data.after, afterBoxes,
  (i) => hover(i === null ? null : { kind: "call", key: i }), (i) => select(i === null ? null : { kind: "call", key: i }));

function linked(item) {
  if (!item) return { onnx: [], calls: [] };
  if (item.kind === "onnx") return { onnx: [item.key], calls: record.onnx[item.key].calls };
  if (item.kind === "call") return { onnx: covers[item.key], calls: [item.key] };
  const calls = record.calls.map((_, i) => i).filter((i) => rulesOf[i].includes(item.key));
  return { onnx: unique(calls.flatMap((i) => covers[i])), calls };
}

function hover(item) {
  const { onnx, calls } = linked(item || selected);
  before.mark("lit", onnx);
  after.mark("lit", calls);
  const linking = Boolean(item || selected);
  before.view.classList.toggle("linking", linking);
  after.view.classList.toggle("linking", linking);
}

function select(item, { reveal = true, hash = true } = {}) {
  selected = item;
  const { onnx, calls } = linked(item);
  before.mark("chosen", item && item.kind === "onnx" ? [item.key] : []);
  after.mark("chosen", item && item.kind === "call" ? [item.key] : []);
  hover(null);
  if (item && reveal) {
    before.reveal(onnx);
    after.reveal(calls);
  }
  if (hash) history.replaceState(null, "", item ? `#${item.kind}=${encodeURIComponent(item.key)}` : location.pathname);
  showDetail();
  drawCosts();
}

// ---- the panel on the right ----

const callLink = (i) => element("a", { class: "link", href: `#call=${i}` },
  `${i}: ${kernelTitle(record.calls[i])}`);
const onnxLink = (i) => element("a", { class: "link", href: `#onnx=${i}` }, short(record.onnx[i].title));
const ruleLink = (name) => element("a", { class: "rule", href: `#rule=${encodeURIComponent(name)}` }, name);
const joined = (links) => links.flatMap((link, i) => (i ? [", ", link] : [link]));

function showDetail() {
  const panel = byId("detail");
  panel.scrollTop = 0;
  const show = { call: callDetail, onnx: onnxDetail, rule: ruleDetail };
  panel.replaceChildren(...(selected ? show[selected.kind](selected.key) : overview()));
}

const STAGES = [["graph", "Rules behind the kernels"], ["fusion", "Rules that fused them"], ["loops", "Rules behind their loops"]];
const FATES = { kernel: "in kernels", constant: "folded into constants", removed: "removed" };
const COLOURS = { contract: "products and convolutions", norm: "normalisation", window: "windows and reductions",
  map: "elementwise", move: "views and copies", host: "on the host" };

function overview() {
  const uses = new Map();
  record.calls.forEach((_, i) => rulesOf[i].forEach((rule) => uses.set(rule, (uses.get(rule) || 0) + 1)));
  const dear = record.calls.map((call, i) => [call.predicted || 0, i]).sort((a, b) => b[0] - a[0]).slice(0, 8);
  const costs = element("div", { class: "bars" });
  for (const [seconds, i] of dear) costs.append(callLink(i), bar(seconds / dearest), duration(seconds));
  const parts = [element("h3", {}, "Where the time goes"), costs, element("h3", {}, "What became of the model"), ...becameOf()];
  for (const [stage, title] of STAGES) {
    const rules = [...uses].filter(([rule]) => record.rules[rule].stage === stage)
      .sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
    if (!rules.length) continue;
    const bars = element("div", { class: "bars" });
    for (const [rule, count] of rules) {
      bars.append(element("span", { class: "step" }, ruleLink(rule)), bar(count / rules[0][1]), counted(count, "call"));
    }
    parts.push(element("h3", {}, title), bars);
  }
  return [...parts, element("h3", {}, "Colours"), legend()];
}

function becameOf() {
  const fates = Object.entries(FATES).map(([fate, words]) => [record.onnx.filter((node) => node.fate === fate).length, words]);
  const hosts = record.calls.filter((call) => !call.kernel).length;
  const methods = Object.entries(record.extraction).map(([method, seconds]) => `${method} ${duration(seconds)}`);
  return [
    `${counted(record.onnx.length, "ONNX node")}: ${fates.filter(([n]) => n).map(([n, words]) => `${n} ${words}`).join(", ")}`,
    hosts ? `${counted(hosts, "call")} on the host, run by numpy` : "nothing runs on the host",
    ...(methods.length ? [`extraction: ${methods.join(", ")}`] : []),
  ].map((text) => element("p", {}, text));
}

function legend() {
  const swatches = element("div", { class: "colours" });
  for (const [kind, words] of Object.entries(COLOURS)) {
    swatches.append(element("i", { style: `background:var(--${kind})` }), element("span", {}, words));
  }
  swatches.append(element("i", { class: "gone" }), element("span", {}, "no kernel computes it"));
  return swatches;
}

function bar(share, kind = "") {
  return element("i", { class: kind, style: `width:${Math.max(0, Math.min(1, share)) * 100}%` });
}

const barRow = (name, share, seconds, kind) => [element("span", {}, name), bar(share, kind),
  element("span", {}, duration(seconds))];

function callDetail(i) {
  const call = record.calls[i];
  const parts = [
    element("h3", {}, `call ${i}: ${call.kernel || "host"}`),
    element("p", {}, "covers ", ...joined(covers[i].map(onnxLink))),
    element("p", {}, `reads ${call.reads.join(", ") || "nothing"}; writes ${call.writes.join(", ")}`),
  ];
  const tabs = element("div", { class: "tabs", role: "tablist" });
  for (const name of ["derivation", "loop nest", "cost", "alternatives"]) {
    tabs.append(element("button", { role: "tab", "aria-selected": String(name === tab),
      onclick: () => { tab = name; showDetail(); } }, name));
  }
  const show = { derivation: derivationOf, "loop nest": nestOf, cost: costOf, alternatives: alternativesOf };
  return [...parts, tabs, ...show[tab](call, i)];
}

function derivationOf(call) {
  const given = call.onnx.flatMap((title) => (onnxOf.get(title) || []).slice(0, 1).flatMap((n) => record.onnx[n].terms));
  const parts = [element("div", { class: "step" }, ...given.slice(0, 40).map((t) => element("code", { class: "given" }, t)))];
  for (const index of call.derivation) parts.push(stepOf(record.steps[index]));
  if (!call.derivation.length) parts.push(element("p", {}, "No rule changed these terms."));
  if (call.fused_by.length) {
    parts.push(element("div", { class: "step" }, "one kernel by ", ...joined(unique(call.fused_by).map(ruleLink))));
  }
  return [...parts, ...chosenOf(call)];
}

const graphNode = new Map((record.graph || []).map((node) => [node.outputs[0], node]));

function chosenOf(call) {
  const lines = call.nodes.filter((name) => graphNode.has(name)).map((name) => {
    const node = graphNode.get(name);
    const operands = [...node.inputs.map((v) => `%${v}`), ...Object.entries(node.attrs).map(([k, v]) => `${k}=${v}`)];
    return `%${node.outputs.join(", %")} = ${node.op}(${operands.join(", ")}) : ${node.types.join("; ")}`;
  });
  return [element("p", {}, "Chosen operators and layouts"), element("pre", {}, lines.join("\n"))];
}

function stepOf(step) {
  const rule = record.rules[step.rule];
  return element("div", { class: "step" }, ruleLink(step.rule), element("small", {}, rule.at),
    element("div", {}, rule.math || rule.doc || ""),
    ...step.matched.map((text) => element("code", { class: "from" }, text)),
    ...step.built.map((text) => element("code", { class: "to" }, text)));
}

function nestOf(call) {
  if (!call.kernel) return [element("p", {}, "numpy runs it: egc does not compile this operator or dtype.")];
  const kernel = record.kernels[call.kernel];
  return [
    element("p", {}, "What it computes, before scheduling"), element("pre", {}, kernel.text),
    element("p", {}, `The loop nest, chosen from ${kernel.cells} cells (${kernel.stopped})`), element("pre", {}, kernel.nest),
    element("p", { class: "step" }, "by ", ...joined(kernel.rules.map(ruleLink))),
  ];
}

// From the core outwards.
const TERMS = ["compute", "l1", "l2", "l3", "dram", "launch", "total"];

function costOf(call, i) {
  if (!call.kernel) return [element("p", {}, "The cost of host operators is not predicted.")];
  const cost = record.kernels[call.kernel].cost;
  const measured = record.measured ? record.measured[i] : null;
  const most = Math.max(...Object.values(cost), measured || 0, 1e-30);
  const bars = element("div", { class: "bars" });
  for (const [name, seconds] of Object.entries(cost).sort(([a], [b]) => TERMS.indexOf(a) - TERMS.indexOf(b))) {
    bars.append(...barRow(name, seconds / most, seconds, name === "total" ? "total" : ""));
  }
  if (measured !== null) bars.append(...barRow("measured", measured / most, measured, "measured"));
  return [bars, element("p", {}, `${((100 * (call.predicted || 0)) / total).toFixed(1)} % of the whole. Terms overlap, `
    + "so the total is less than their sum.")];
}

function alternativesOf(call) {
  const parts = [];
  if (call.alternatives.length) {
    parts.push(element("p", {}, "Other spellings in the e-graph, by the prices of extraction, which knows no loop nests"));
  }
  for (const other of call.alternatives) {
    const rules = other.rules.length ? joined(other.rules.map(ruleLink)) : ["the model"];
    parts.push(element("div", { class: "step" }, element("b", {}, signed(other.seconds)), " by ", ...rules,
      element("code", {}, `${other.value} = ${other.term}`),
      element("code", { class: "instead" }, other.chosen)));
  }
  if (call.kernel) {
    const kernel = record.kernels[call.kernel];
    for (const other of kernel.alternatives) {
      const by = signed(other.cost.total - kernel.cost.total);
      parts.push(element("p", {}, "another loop nest, ", element("b", {}, by)),
        element("pre", {}, ...changed(kernel.nest.split("\n"), other.nest.split("\n"))));
    }
  }
  return parts.length ? parts : [element("p", {}, "There was nothing else to choose.")];
}

// Lines, those marked that are not in the chosen ones: what is left of the longest common subsequence.
function changed(chosen, lines) {
  const common = lines.map(() => new Array(chosen.length + 1).fill(0));
  common.push(new Array(chosen.length + 1).fill(0));
  for (let i = lines.length - 1; i >= 0; i--) {
    for (let j = chosen.length - 1; j >= 0; j--) {
      common[i][j] = lines[i].trim() === chosen[j].trim() ? common[i + 1][j + 1] + 1
        : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  let j = 0;
  return lines.map((line, i) => {
    while (j < chosen.length && common[i][j + 1] === common[i][j] && common[i][j] > common[i + 1][j]) j++;
    const same = j < chosen.length && line.trim() === chosen[j].trim();
    if (same) j++;
    return same ? `${line}\n` : element("mark", {}, `${line}\n`);
  });
}

function onnxDetail(i) {
  const node = record.onnx[i];
  const fate = node.calls.length ? [] : [element("p", {}, `${node.fate}: ${node.by.join(", ")}`)];
  return [
    element("h3", {}, short(node.title)),
    element("p", {}, `${node.op}: ${node.inputs.join(", ")} → ${node.outputs.join(", ")}`),
    ...fate, ...node.calls.map((c) => element("p", {}, callLink(c))),
    element("p", {}, "imported as"), element("pre", {}, node.terms.join("\n") || "nothing"),
  ];
}

function ruleDetail(name) {
  const rule = record.rules[name];
  const { calls } = linked({ kind: "rule", key: name });
  const parts = [
    element("h3", {}, name), element("p", {}, `${rule.at} · ${rule.class} · ruleset ${rule.ruleset}`),
    element("p", {}, rule.math || ""), element("p", {}, rule.doc || ""),
    element("p", {}, `matched ${rule.matches === 1 ? "once" : `${rule.matches} times`}, behind ${counted(calls.length, "call")}`),
    ...calls.map((i) => element("div", {}, callLink(i))),
  ];
  for (const loss of rule.lost) {
    parts.push(element("div", { class: "step" }, `lost by ${signed(loss.seconds)} in `, callLink(loss.call),
      element("code", {}, `${loss.value} = ${loss.term}`)));
  }
  return parts;
}

// ---- search ----

const index = [
  ...record.onnx.map((node, i) => ({ kind: "onnx", key: i, label: short(node.title),
    text: `${node.title} ${node.op} ${node.outputs.join(" ")}`.toLowerCase() })),
  ...record.calls.map((call, i) => ({ kind: "call", key: i, label: `${i}: ${call.kernel || "host"}`,
    text: `call ${i} ${call.kernel || "host"} ${call.writes.join(" ")}`.toLowerCase() })),
  ...Object.keys(record.rules).filter((name) => record.rules[name].matches || rulesOf.some((list) => list.includes(name)))
    .map((name) => ({ kind: "rule", key: name, label: name, text: `rule ${name} ${record.rules[name].math || ""}`.toLowerCase() })),
];
let found = [], cursor = 0;

function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  found = words.length ? index.filter((entry) => words.every((word) => entry.text.includes(word))) : [];
  cursor = 0;
  before.mark("hit", found.filter((e) => e.kind === "onnx").map((e) => e.key));
  after.mark("hit", found.filter((e) => e.kind === "call").map((e) => e.key));
  showResults();
}

function showResults() {
  const list = byId("results");
  list.hidden = !byId("search").value.trim();
  list.replaceChildren(...found.slice(0, 60).map((entry, i) => element("li", {
    role: "option", "aria-selected": String(i === cursor), onmousedown: (event) => { event.preventDefault(); choose(entry); },
  }, element("small", {}, entry.kind), entry.label)));
  if (!found.length) list.append(element("li", {}, "nothing"));
  list.children[cursor]?.scrollIntoView({ block: "nearest" });
}

function choose(entry) {
  byId("results").hidden = true;
  byId("search").blur();
  select({ kind: entry.kind, key: entry.key });
}

byId("search").addEventListener("input", (event) => search(event.target.value));
byId("search").addEventListener("focus", showResults);
byId("search").addEventListener("blur", () => { byId("results").hidden = true; });
byId("search").addEventListener("keydown", (event) => {
  const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (move && found.length) {
    cursor = (cursor + move + Math.min(found.length, 60)) % Math.min(found.length, 60);
    showResults();
    event.preventDefault();
  } else if (event.key === "Enter" && found.length) choose(found[cursor]);
  else if (event.key === "Escape") { event.target.value = ""; search(""); event.target.blur(); }
  event.stopPropagation();
});

// ---- the strip below ----

let costBox = null;

function drawCosts() {
  const section = byId("costs");
  if (!costBox) {
    const heading = element("h2", { class: "legend" }, "Cost of each call", element("span", {}, "predicted"));
    if (record.measured) heading.append(element("span", { class: "m" }, "measured"));
    costBox = element("canvas", { tabindex: "0", "aria-label": "Cost of each call; ← and → select" });
    section.append(heading, costBox);
    const at = (event) => Math.floor((event.offsetX / costBox.clientWidth) * record.calls.length);
    costBox.addEventListener("click", (event) => select({ kind: "call", key: at(event) }));
    costBox.addEventListener("pointermove", (event) => {
      const i = at(event);
      if (!record.calls[i]) return;
      hover({ kind: "call", key: i });
      costBox.title = `call ${i}: ${record.calls[i].kernel || "host"}, ${duration(record.calls[i].predicted)}`;
    });
    costBox.addEventListener("pointerleave", () => hover(null));
    new ResizeObserver(drawCosts).observe(costBox);
  }
  const ratio = devicePixelRatio || 1;
  const [w, h] = [costBox.clientWidth, costBox.clientHeight];
  costBox.width = w * ratio;
  costBox.height = h * ratio;
  const paint = costBox.getContext("2d");
  paint.scale(ratio, ratio);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
  const [plain, strong, seen] = ["--accent", "--lit-line", "--good"].map(colour);
  const width = w / Math.max(1, record.calls.length);
  const most = Math.max(dearest, ...(record.measured || []));
  const chosen = selected && selected.kind === "call" ? selected.key : -1;
  record.calls.forEach((call, i) => {
    const parts = record.measured ? [[call.predicted || 0, plain], [record.measured[i], seen]] : [[call.predicted || 0, plain]];
    parts.forEach(([seconds, fill], k) => {
      const height = Math.max(1, (seconds / most) * (h - 4));
      paint.fillStyle = i === chosen && k === 0 ? strong : fill;
      const part = (width * 0.84) / parts.length;
      paint.fillRect(i * width + k * part, h - height, Math.max(0.6, part), height);
    });
  });
}

function drawGrowth() {
  const section = byId("growth");
  section.append(element("h2", {}, "E-graph growth"));
  const svg = make("svg", { viewBox: "0 0 440 122" }, section);
  const most = Math.max(...record.growth.map((g) => g.enodes), 1);
  const step = 440 / Math.max(1, record.growth.length);
  record.growth.forEach((g, i) => {
    const height = (g.enodes / most) * 66;
    const fill = g.stopped === "saturated" ? "var(--accent)" : "var(--bad)";
    make("rect", { x: i * step + 10, y: 86 - height, width: step * 0.5, height, fill, rx: 3 }, svg);
    make("text", { x: i * step + 10, y: 80 - height }, svg, `${g.enodes} e-nodes`);
    make("text", { x: i * step + 10, y: 101 }, svg, g.phase);
    const took = g.seconds === null ? "" : `, ${duration(g.seconds)}`;
    const end = g.stopped === "saturated" ? `${counted(g.rounds, "round")}${took}` : `budget: ${g.stopped}`;
    make("text", { x: i * step + 10, y: 115 }, svg, end);
  });
}

// ---- keys, theme, address ----

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  drawCosts();
}
const otherTheme = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
byId("theme").addEventListener("click", otherTheme);
byId("help-button").addEventListener("click", () => byId("help").showModal());

function moveCall(by) {
  const now = selected ? (linked(selected).calls[0] ?? 0) : by > 0 ? -1 : record.calls.length;
  const next = Math.min(record.calls.length - 1, Math.max(0, now + by));
  if (record.calls.length) select({ kind: "call", key: next });
}
const setTab = (name) => { tab = name; showDetail(); };
const zoomBoth = (factor) => { before.zoom(factor); after.zoom(factor); };
const KEYS = {
  "/": () => byId("search").focus(), "?": () => byId("help").showModal(), t: otherTheme, Escape: () => select(null),
  j: () => moveCall(1), k: () => moveCall(-1), ArrowRight: () => moveCall(1), ArrowLeft: () => moveCall(-1),
  "+": () => zoomBoth(1.25), "=": () => zoomBoth(1.25), "-": () => zoomBoth(0.8), 0: () => { before.fit(); after.fit(); },
  1: () => setTab("derivation"), 2: () => setTab("loop nest"), 3: () => setTab("cost"), 4: () => setTab("alternatives"),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

function follow() {
  const [kind, value] = location.hash.slice(1).split("=");
  const key = decodeURIComponent(value || "");
  if (kind === "search") {
    byId("search").value = key;
    search(key);
  } else if (kind === "rule" && record.rules[key]) select({ kind, key }, { hash: false });
  else if (kind === "call" && record.calls[key]) select({ kind, key: Number(key) }, { hash: false });
  else if (kind === "onnx" && record.onnx[key]) select({ kind, key: Number(key) }, { hash: false });
  else select(null, { hash: false });
}

byId("model").textContent = record.model;
const measuredTotal = record.measured ? `, measured ${duration(record.measured.reduce((a, b) => a + b, 0))}` : "";
byId("summary").append(
  element("span", {}, element("b", {}, String(record.onnx.length)), " ONNX nodes → ",
    element("b", {}, String(record.calls.length)), " calls of ", String(Object.keys(record.kernels).length), " kernels"),
  element("span", {}, "predicted ", element("b", {}, duration(total)), `${measuredTotal} on ${record.machine.name}`),
);
byId("before-count").textContent = `${record.onnx.length} ONNX nodes`;
byId("after-count").textContent = `${record.calls.length} kernel calls`;
setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
drawGrowth();
addEventListener("hashchange", follow);
requestAnimationFrame(follow);
