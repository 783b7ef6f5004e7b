/** The cards, the tables and the charts: which figure stands where, from the stats with a token, else from the metrics. */

import { Chart, element } from "./chart.js";
import { bytes, count, rate as perSecond, seconds, text } from "./format.js";
import { quantile, rate } from "./metrics.js";

/** What an operator looks at; `bad`: says when it is no good sign. A row that nobody knows is not shown. */
const CARDS = [
  ["Server", [
    ["version", (s) => s?.version, text],
    ["up for", (s) => s?.uptime_s, seconds],
    ["sync mode", (s, m) => m.syncMode(), text],
    ["epoch", (s) => s?.epoch, count],
    ["store", (s) => s?.store_id, text, { long: true }],
  ]],
  ["Conversations", [
    ["known", (s, m) => s?.conversations.known ?? m.sum("chinwag_conversations"), count],
    ["in memory", (s, m) => s?.conversations.in_memory ?? m.sum("chinwag_conversations_in_memory"), count],
    ["refused", (s, m) => s?.conversations.quarantined ?? m.sum("chinwag_conversations_quarantined"), count, { bad: some }],
    ["actors died", (s, m) => m.sum("chinwag_actors_died_total"), count, { bad: some }],
    ["messages since the start", (s, m) => m.sum("chinwag_messages_total"), count],
    ["messages at the start", (s) => s?.messages.at_start, count],
  ]],
  ["Connections", [
    ["open", (s, m) => m.sum("chinwag_connections"), count],
    ["at most", (s) => s?.connections.max, count],
    ["WebSockets", (s, m) => m.sum("chinwag_streams", { kind: "websocket" }), count],
    ["event streams", (s, m) => m.sum("chinwag_streams", { kind: "sse" }), count],
    ["events given", (s, m) => m.sum("chinwag_stream_events_total"), count],
    ["told to pull", (s, m) => m.sum("chinwag_stream_behind_total"), count],
    ["stalled", (s, m) => m.sum("chinwag_stream_stalled_total"), count],
  ]],
  ["Work in flight", [
    ["requests", (s, m) => m.sum("chinwag_in_flight"), count],
    ["permits taken", (s) => s && `${count(s.requests.permits_taken)} of ${count(s.requests.permits_max)}`, text],
    ["bytes of bodies", (s) => s && `${bytes(s.requests.permits_bytes)} of ${bytes(s.requests.permits_max_bytes)}`, text],
    ["answered", (s) => s?.requests.answered, count],
    ["with an error", (s) => s?.requests.errors, count],
  ]],
  ["Log", [
    ["state", (s) => s?.log.state.replace("_", " "), text, { bad: (state) => state !== "writable" }],
    ["newest record", (s) => s?.log.appended_lsn, count],
    ["durable up to", (s) => s?.log.durable_lsn, count],
    ["oldest kept", (s) => s?.log.oldest_lsn ?? undefined, count],
    ["files", (s) => s && `${count(s.log.segments)}, ${bytes(s.log.kept_bytes)}`, text],
    ["written since the start", (s, m) => m.sum("chinwag_log_bytes_total"), bytes],
    ["commits", (s, m) => m.sum("chinwag_commit_records_count"), count],
    ["records in one, p50 / p99", (s) => s && `${count(s.log.commit_p50_records)} / ${count(s.log.commit_p99_records)}`, text],
    ["torn tails cut", (s, m) => m.sum("chinwag_torn_tails_total"), count],
  ]],
  ["Packs and checkpoints", [
    ["packs", (s) => s && `${count(s.snapshot.packs)}, ${bytes(s.snapshot.packs_bytes)}`, text],
    ["chunks", (s) => s?.snapshot.chunks, count],
    ["checkpoints", (s, m) => m.sum("chinwag_checkpoints_total", { result: "ok" }), count],
    ["failed", (s, m) => m.sum("chinwag_checkpoints_total", { result: "failed" }), count],
    ["the newest failed", (s, m) => (m.sum("chinwag_checkpoint_failing") === 1 ? "yes" : "no"), text, { bad: (is) => is === "yes" }],
    ["last one", (s, m) => ago(m.sum("chinwag_checkpoint_written_timestamp_seconds"), s?.time_s), text],
    ["it took", (s, m) => m.sum("chinwag_checkpoint_written_timestamp_seconds") > 0 ? m.sum("chinwag_checkpoint_milliseconds") / 1e3 : undefined, seconds],
    ["scrub ended", (s, m) => ago(m.sum("chinwag_scrub_finished_timestamp_seconds"), s?.time_s), text],
    ["damages found by it", (s, m) => m.sum("chinwag_scrub_damaged_total"), count, { bad: some }],
  ]],
  ["Memory and disk", [
    ["resident", (s) => s?.memory.resident_bytes ?? undefined, bytes],
    ["conversations", (s, m) => m.sum("chinwag_conversations_bytes"), bytes],
    ["they may take", (s) => s?.memory.conversations_max_bytes, bytes],
    ["disk free", (s) => s?.disk.free_bytes ?? undefined, bytes],
  ]],
];

const MEANINGS = {
  10001: "the request breaks a rule",
  10003: "something broke: the server's log has the cause",
  10004: "the token is missing or not accepted",
  10008: "not a member, blocked, muted or not allowed",
  10009: "too fast, or too many streams of one user",
  10011: "overloaded, draining, disk full, or the log has failed",
  20001: "no such message",
  20002: "somebody else's message",
  20003: "client_msg_id reused with other content",
  20004: "the recall window has passed",
  22002: "no such group",
  22003: "the group id is taken",
};

function some(value) {
  return value > 0;
}

function ago(then_s, now_s = Date.now() / 1e3) {
  return then_s > 0 ? `${seconds(Math.max(0, Math.round(now_s - then_s)))} ago` : "not yet";
}

/** Fills the cards. */
export function showCards(place, stats, metrics) {
  place.replaceChildren(...CARDS.map(([title, rows]) => {
    const shown = rows.flatMap(([label, value, format, { bad, long } = {}]) => {
      const found = value(stats, metrics);
      if (found === undefined || found === null) return [];
      const said = element("dd", { text: format(found), className: long ? "long" : undefined });
      if (bad?.(found)) said.dataset.kind = "bad";
      return [element("dt", { text: label }), said];
    });
    return element("div", { className: "card" }, [element("h3", { text: title }), element("dl", {}, shown)]);
  }));
}

function row(cells, wordsFrom) {
  const made = cells.slice(1).map((cell, index) => element("td", { text: cell, className: index + 1 >= wordsFrom ? "words" : undefined }));
  const head = element("th", { text: cells[0] });
  head.scope = "row";
  return element("tr", {}, [head, ...made]);
}

function nothing(words, columns) {
  const cell = element("td", { text: words, className: "words" });
  cell.colSpan = columns;
  return element("tr", {}, [cell]);
}

/** Fills the table of the verbs. */
export function showCalls(place, { now, before, elapsed_s }) {
  const rows = now.verbs().map(({ verb, answered, errors }) => {
    const took = now.histogram("chinwag_request_seconds", { verb });
    const of_verb = { verb };
    const recent = before && rate(answered, before.sum("chinwag_requests_total", of_verb), elapsed_s);
    const times = [0.5, 0.9, 0.99, 0.999].map((share) => seconds(quantile(share, took)));
    return row([verb, count(answered), count(errors), perSecond(recent), ...times], Infinity);
  });
  place.replaceChildren(...(rows.length > 0 ? rows : [nothing("No call yet.", 8)]));
}

/** Fills the table of the errors. */
export function showErrors(place, { now }) {
  const rows = now.errors().map(({ code, errors, verbs }) => row([code, count(errors), MEANINGS[code] ?? "another", verbs.join(", ")], 2));
  place.replaceChildren(...(rows.length > 0 ? rows : [nothing("None.", 4)]));
}

/** The charts, with what each takes from two looks and the stats. */
const CHARTS = [
  ["Requests a second", ["answered", "errors"], perSecond, ({ now, before, elapsed_s }) => {
    const of = (metrics, take) => metrics.verbs().reduce((sum, verb) => sum + verb[take], 0);
    return ["answered", "errors"].map((take) => rate(of(now, take), of(before, take), elapsed_s));
  }],
  ["Answers, p99", ["send", "pull"], seconds, (looks) => ["send", "pull"].map((verb) => recent(0.99, looks, "chinwag_request_seconds", { verb }))],
  ["Syncs of the log", ["p99", "p50"], seconds, (looks) => [0.99, 0.5].map((share) => recent(share, looks, "chinwag_sync_seconds"))],
  ["Waiting", ["requests in flight", "records for the log"], count, ({ now }, stats) => [now.sum("chinwag_in_flight"), stats?.log.waiting_records]],
  ["Memory", ["resident", "conversations"], bytes, ({ now }, stats) => [stats?.memory.resident_bytes, now.sum("chinwag_conversations_bytes")]],
];

function recent(share, { now, before }, name, labels) {
  return quantile(share, now.histogram(name, labels), before.histogram(name, labels));
}

/** Puts the charts into their place; gives back what adds two looks to them. */
export function makeCharts(place, every_s) {
  const charts = CHARTS.map(([title, lines, format, values]) => ({ chart: new Chart(title, lines, format, format === bytes ? 2 : 10), values }));
  place.replaceChildren(...charts.map(({ chart }) => chart.element));
  return (looks, stats) => {
    for (const { chart, values } of charts) chart.add(looks === null ? [] : values(looks, stats), every_s);
  };
}
