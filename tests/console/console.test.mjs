/**
 * The console in a real browser, on the real server: what somebody sees, with and without a token.
 *
 * Run in clients/typescript, whose tests have the server and the browser: `npm ci && npx tsc -p tsconfig.test.json`, then
 * `node --experimental-websocket --test ../../tests/console/*.test.mjs`.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Chromium } from "../../clients/typescript/build/browser-test/chromium.js";
import { Server } from "../../clients/typescript/build/test/support/server.js";

const TIMEOUT = { timeout: 120_000 };
/** Long before the test's own end. */
const PATIENCE_MS = 30_000;

async function open(t, flags) {
  const server = await Server.start(t, flags);
  const page = await (await Chromium.start(t)).open(`${server.ops}/`, state("Ready"));
  return { server, page };
}

/** Whether the state is said to be so. */
function state(words) {
  return `document.getElementById("state")?.textContent === ${JSON.stringify(words)}`;
}

/** Waits until an expression holds in the page. */
async function until(page, expression) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await page.evaluate(expression))) {
    assert.ok(Date.now() < end, `never: ${expression}; the page says ${await page.evaluate("document.body.innerText")}`);
    await new Promise((look) => setTimeout(look, 20));
  }
}

function text(page, id) {
  return page.evaluate(`document.getElementById(${JSON.stringify(id)}).innerText`);
}

/** Types a token in and uses it. */
async function enter(page, token, keep = false) {
  await page.evaluate(`{
    document.getElementById("token").value = ${JSON.stringify(token)};
    document.getElementById("token-keep").checked = ${keep};
    document.getElementById("token-form").requestSubmit();
  }`);
}

function press(page, name) {
  return page.evaluate(`[...document.querySelectorAll("button")].find(({ textContent }) => textContent.startsWith(${JSON.stringify(name)})).click()`);
}

async function send(server, from, body) {
  const headers = { Authorization: `Bearer ${server.token(from)}`, "Content-Type": "application/json" };
  return (await fetch(`${server.url}/im.chat/send`, { method: "POST", headers, body: JSON.stringify(body) })).status;
}

test("without a token it shows what everybody may read, and orders are off", TIMEOUT, async (t) => {
  const { server, page } = await open(t);
  assert.equal(await send(server, "alice", { target: "bob", target_type: "user", msg: "m" }), 200);
  assert.equal(await send(server, "alice", { target: "bob", target_type: "user" }), 400);
  await until(page, `document.getElementById("calls").innerText.includes("send")`);
  assert.match(await text(page, "errors"), /10001\s+1\s+the request breaks a rule\s+send/);
  assert.doesNotMatch(await text(page, "figures"), /resident/);
  assert.equal(await page.evaluate(`[...document.querySelectorAll("#orders button")].every(({ disabled }) => disabled)`), true);
  assert.equal(await page.evaluate(`document.querySelectorAll("#charts svg[aria-label]").length`), 5);
  // From the second look on there is something to compare with.
  await until(page, `document.querySelectorAll("#charts polyline").length >= 2`);
});

test("with an admin token it shows the figures and takes orders; the token is nowhere but in the page", TIMEOUT, async (t) => {
  const { server, page } = await open(t);
  await enter(page, server.token("alice"));
  await until(page, `document.getElementById("token-answer").textContent.includes("this takes an admin token (10008)")`);
  await enter(page, "two words");
  await until(page, `document.getElementById("token-answer").textContent.startsWith("A token is")`);
  await enter(page, server.token("ops", 3600, ["--admin"]));
  await until(page, `document.getElementById("figures").innerText.includes("resident")`);
  assert.match(await text(page, "token-who"), /^In use: ops, until /);
  assert.equal(await page.evaluate(`location.href.length + sessionStorage.length + localStorage.length + document.cookie.length - location.origin.length`), 1);

  assert.equal(await send(server, "alice", { target: "bob", target_type: "user", msg: "m" }), 200);
  await press(page, "Take a checkpoint");
  await until(page, `/^Take a checkpoint: done in /.test(document.getElementById("orders-answer").textContent)`);
  await until(page, `/checkpoints\\s+1\\s/.test(document.getElementById("figures").innerText)`);

  await press(page, "Checkpoint and merge");
  await until(page, `document.getElementById("confirm").open`);
  await press(page, "Cancel");
  await until(page, `!document.getElementById("confirm").open`);
  assert.match(await text(page, "orders-answer"), /^Take a checkpoint: done/);
  await press(page, "Back up");
  await page.evaluate(`{ document.getElementById("confirm-value").value = "<b>not absolute</b>"; document.getElementById("confirm-yes").click(); }`);
  await until(page, `document.getElementById("orders-answer").textContent.includes("must be an absolute path")`);

  await press(page, "Forget it");
  await until(page, `!document.getElementById("figures").innerText.includes("resident")`);
});

test("a token that is kept outlives a new load of the page, and nothing else does", TIMEOUT, async (t) => {
  const { server, page } = await open(t);
  const token = server.token("ops", 3600, ["--admin"]);
  for (const keep of [false, true]) {
    await enter(page, token, keep);
    await until(page, `!document.getElementById("token-used").hidden && document.getElementById("figures").innerText.includes("resident")`);
    await page.evaluate(`{ window.before = true; location.reload(); }`);
    await until(page, `window.before === undefined && ${state("Ready")}`).catch(() => undefined);
    await until(page, `window.before === undefined && ${state("Ready")}`);
    assert.equal(await page.evaluate(`document.getElementById("token-used").hidden`), !keep);
  }
});

test("a server that is gone is said to be, and found again when it is back", TIMEOUT, async (t) => {
  const { server, page } = await open(t);
  await server.kill();
  await until(page, state("Unreachable"));
  await server.start();
  await until(page, state("Ready"));
});

test("the policy that comes with the page lets no text become markup and nothing go elsewhere", TIMEOUT, async (t) => {
  const { server, page } = await open(t);
  const fails = (code) => page.evaluate(`(async () => { try { ${code}; return false; } catch (why) { return String(why); } })()`);
  assert.match(String(await fails(`document.body.innerHTML = "<b>x</b>"`)), /TrustedHTML/);
  assert.match(String(await fails(`document.createElement("script").text = "1"`)), /TrustedScript/);
  assert.match(String(await fails(`document.createElement("script").src = "/console/main.js"`)), /TrustedScriptURL/);
  assert.match(String(await fails(`await fetch(${JSON.stringify(server.url)} + "/openapi.json", { mode: "no-cors" })`)), /TypeError/);
});

test("quantiles and rates are those of what came between two looks", TIMEOUT, async (t) => {
  const { page } = await open(t);
  const found = await page.evaluate(`import("/console/metrics.js").then(({ Metrics, quantile, rate }) => {
    const look = (a, b, c) => new Metrics(['x_bucket{le="1.0",v="s"} ' + a, 'x_bucket{le="2.0",v="s"} ' + b, 'x_bucket{le="+Inf",v="s"} ' + c,
      '# HELP x', 'n_total{verb="s",code="0"} 7', 'n_total{verb="s",code="10001"} 2', 'plain 5 123'].join("\\n"));
    const [before, now] = [look(100, 100, 100).histogram("x", { v: "s" }), look(100, 110, 110).histogram("x", { v: "s" })];
    const above = look(0, 0, 4).histogram("x", { v: "s" });
    return [quantile(0.5, now, before), quantile(0.5, now), quantile(0.5, before, before), quantile(0.5, above), quantile(0.5, []),
      look(0, 0, 0).sum("n_total"), look(0, 0, 0).sum("plain"), look(0, 0, 0).sum("none"), rate(9, 5, 2), rate(3, 5, 2), rate(3, null, 2)];
  })`);
  assert.deepEqual(found, [1.5, 0.55, null, 2, null, 9, 5, null, 2, null, null]);
});
