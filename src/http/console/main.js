/** The console: asks every two seconds while somebody looks, and hands orders on. Nothing that comes in is ever markup. */

import { call, claims, forgetToken, hasToken, read, Refused, useToken } from "./admin.js";
import { element } from "./chart.js";
import { makeCharts, showCalls, showCards, showErrors } from "./figures.js";
import { seconds } from "./format.js";
import { Metrics } from "./metrics.js";

const EVERY_S = 2;
/** A server that works answers in milliseconds. */
const PATIENCE_MS = 5_000;

const STATES = {
  ready: "Ready",
  draining: "Draining: takes nothing new",
  read_only: "Read-only: the disk is full",
  log_failed: "The log has failed",
  unreachable: "Unreachable",
};
/** What /readyz says where there is no word for it. */
const READINESS = new Map([["ready", "ready"], ["draining", "draining"], ["read-only: the disk is full", "read_only"], ["the log has failed", "log_failed"]]);

const ORDERS = [
  { name: "Take a checkpoint", verb: "snapshot", body: () => ({ compact: false }) },
  {
    name: "Checkpoint and merge all packs…",
    verb: "snapshot",
    body: () => ({ compact: true }),
    confirm: "This writes all packs anew as one, which may take minutes and keeps the disk busy. Sends go on meanwhile. Afterwards no file has a text that was recalled before, unless the log is kept on purpose.",
  },
  {
    name: "Back up…",
    verb: "backup",
    body: (to) => ({ to }),
    confirm: "This copies the store while it is served. The copy holds every message and the key that signs tokens: guard it as the original.",
    field: "New directory on the server's machine, from the root (/…)",
  },
];

const $ = (id) => document.getElementById(id);
const addToCharts = makeCharts($("charts"), EVERY_S);
let [last, timer, isLooking] = [null, undefined, false];

function say(place, words, kind = "") {
  place.textContent = words;
  place.dataset.kind = kind;
}

function showState(state, words = STATES[state] ?? state) {
  const place = $("state");
  // Said aloud when it changes, not every two seconds.
  if (place.textContent !== words) place.textContent = words;
  place.dataset.state = state;
  document.title = `${words} – Chinwag console`;
}

/** One look at everything that may be read. */
async function look() {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const [readiness, text, stats] = await Promise.all([
    read("readyz", signal),
    read("metrics", signal),
    hasToken() ? call("stats", {}, signal).catch(refused) : undefined,
  ]);
  if (stats !== undefined) say($("token-answer"), "");
  const [now, at_ms] = [new Metrics(text), performance.now()];
  const said = readiness.trim();
  showState(READINESS.get(said) ?? "unknown", READINESS.has(said) ? undefined : said.slice(0, 80));
  show({ now, before: last?.now ?? null, elapsed_s: last && (at_ms - last.at_ms) / 1e3 }, stats);
  last = { now, at_ms };
}

function show(looks, stats) {
  const began = looks.now.sum("chinwag_requests_total") < (looks.before?.sum("chinwag_requests_total") ?? 0);
  // The first look, and the first after a new start, have nothing to be compared with.
  addToCharts(looks.before === null || began ? null : looks, stats);
  // What somebody has marked, to copy it, stays until they let go.
  if (!document.getSelection().isCollapsed) return;
  showCards($("figures"), stats, looks.now);
  showCalls($("calls"), looks);
  showErrors($("errors"), looks);
  $("about").textContent = stats === undefined ? location.host : `${location.host}, version ${stats.version}, up for ${seconds(stats.uptime_s)}`;
}

/** A token that is no good any more is not kept; anything else is tried again with the next look. */
function refused(why) {
  if (!(why instanceof Refused)) throw why;
  if (why.isOfToken) {
    forgetToken();
    showToken();
  }
  say($("token-answer"), `The server says: ${why.message}`, "bad");
  return undefined;
}

async function keepLooking() {
  if (isLooking) return;
  isLooking = true;
  clearTimeout(timer);
  try {
    await look();
  } catch {
    showState("unreachable");
    addToCharts(null);
    last = null;
  }
  isLooking = false;
  if (!document.hidden) timer = setTimeout(keepLooking, EVERY_S * 1e3);
}

function showToken() {
  const whose = hasToken() ? claims() : null;
  $("token-form").hidden = hasToken();
  $("token-used").hidden = !hasToken();
  $("token-who").textContent = whose === null ? "A token is in use." : `In use: ${whose.sub}, until ${until(whose.exp)}.`;
  for (const button of $("orders").children) button.disabled = !hasToken() || button.dataset.runs === "yes";
}

function until(exp_s) {
  const date = new Date(exp_s * 1e3);
  return Number.isNaN(date.getTime()) ? "nobody knows when" : date.toLocaleString();
}

async function tryToken(event) {
  event.preventDefault();
  const [field, answer] = [$("token"), $("token-answer")];
  const given = field.value.trim();
  if (!/^[\w.-]+$/.test(given)) {
    say(answer, "A token is three words of letters, digits, - and _ with points between them.", "bad");
    return field.focus();
  }
  useToken(given, $("token-keep").checked);
  try {
    await call("stats", {}, AbortSignal.timeout(PATIENCE_MS));
    field.value = "";
    say(answer, "");
  } catch (why) {
    forgetToken();
    say(answer, why instanceof Refused ? `The server says: ${why.message}` : "The server does not answer.", "bad");
  }
  showToken();
  if (hasToken()) $("token-forget").focus();
  keepLooking();
}

function forget() {
  forgetToken();
  say($("token-answer"), "Forgotten.");
  showToken();
  $("token").focus();
  keepLooking();
}

/** Asks first where an order says so; the value of its field, `null` for no. */
async function confirmed({ name, confirm, field }) {
  const dialog = $("confirm");
  $("confirm-title").textContent = name.replace("…", "");
  $("confirm-text").textContent = confirm;
  $("confirm-field").hidden = field === undefined;
  $("confirm-label").textContent = field ?? "";
  $("confirm-value").value = "";
  $("confirm-value").required = field !== undefined;
  $("confirm-yes").textContent = name.replace("…", "");
  dialog.returnValue = "no";
  dialog.showModal();
  // Nothing is confirmed by a key pressed a moment too often.
  $(field === undefined ? "confirm-no" : "confirm-value").focus();
  // That an earlier question was closed may be told only while this one is open.
  await new Promise((closed) => (dialog.onclose = () => dialog.open || closed()));
  return dialog.returnValue === "yes" ? $("confirm-value").value : null;
}

async function give(order, button) {
  const value = order.confirm === undefined ? "" : await confirmed(order);
  if (value === null) return;
  const [answer, began] = [$("orders-answer"), performance.now()];
  button.dataset.runs = "yes";
  showToken();
  say(answer, `${order.name.replace("…", "")}: the server is at it.`);
  try {
    const reply = await call(order.verb, order.body(value));
    const took = seconds((performance.now() - began) / 1e3);
    const details = Object.entries(reply).map(([key, what]) => `${key} ${what}`).join(", ");
    say(answer, `${order.name.replace("…", "")}: done in ${took}${details && `: ${details}`}.`, "good");
  } catch (why) {
    say(answer, `${order.name.replace("…", "")}: ${why instanceof Refused ? why.message : "the server does not answer"}`, "bad");
  }
  delete button.dataset.runs;
  showToken();
}

function makeOrders() {
  $("orders").replaceChildren(...ORDERS.map((order) => {
    const button = element("button", { text: order.name });
    button.type = "button";
    button.addEventListener("click", () => give(order, button));
    return button;
  }));
}

makeOrders();
showToken();
$("token-form").addEventListener("submit", tryToken);
$("token-forget").addEventListener("click", forget);
$("confirm-no").addEventListener("click", () => $("confirm").close("no"));
document.addEventListener("visibilitychange", () => document.hidden || keepLooking());
keepLooking();
