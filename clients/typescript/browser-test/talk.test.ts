/** The built package in pages of a real browser, of another origin than the server's. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { resolve } from "node:path";
import { test, type TestContext } from "node:test";

import { Server } from "../test/support/server.js";
import { Chromium, type Page } from "./chromium.js";

const EACH = 40;

/** Runs in the page: `begin` connects, `talk` sends, `read` resolves with everything once there is so much. */
const PAGE = `<!doctype html><title>chat</title><script type="module">
  import { Client } from "/dist/index.js";
  const got = [];
  const states = [];
  let client;
  window.begin = (url, token) => new Promise((online) => {
    client = new Client({ url, token, connect_backoff: { base_ms: 50, cap_ms: 500 }, retry_ms: 45_000 });
    client.on("message", ({ msg_index, msg }) => got.push([msg_index, msg]));
    client.on("state", ({ state }) => { states.push(state); if (state === "online") online(client.user); });
    client.connect();
  });
  window.talk = async (target, name, from, to) => {
    for (let index = from; index < to; index += 1) await client.send({ target, target_type: "user", msg: name + " " + index });
  };
  window.read = (count) => new Promise((done) => {
    const look = () => got.length >= count && done({ got, states });
    client.on("message", look);
    look();
  });
  window.ready = true;
</script>`;

async function pages(t: TestContext): Promise<string> {
  const server = createServer((request, response) => {
    const script = /^\/dist\/([a-z-]+\.js)$/.exec(request.url ?? "")?.[1];
    response.setHeader("Content-Type", script === undefined ? "text/html" : "text/javascript");
    response.end(script === undefined ? PAGE : readFileSync(resolve("dist", script)));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.closeAllConnections());
  t.after(() => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function open(browser: Chromium, origin: string): Promise<Page> {
  return browser.open(`${origin}/`, "window.ready === true");
}

test("two pages talk while the server is killed and started again: each sees 1..n once", { timeout: 120_000 }, async (t) => {
  const origin = await pages(t);
  const server = await Server.start(t, ["--origin", origin]);
  const browser = await Chromium.start(t);
  const names = ["alice", "bob"];
  const both = await Promise.all(names.map(() => open(browser, origin)));
  const users = await Promise.all(
    both.map((page, which) => page.evaluate(`begin(${JSON.stringify(server.url)}, ${JSON.stringify(server.token(names[which]!))})`)),
  );
  assert.deepEqual(users, names);

  const talk = (from: number, to: number): Promise<unknown>[] =>
    both.map((page, which) => page.evaluate(`talk("${names[1 - which]}", "${names[which]}", ${from}, ${to})`));
  await Promise.all(talk(0, EACH / 2));
  const talks = talk(EACH / 2, EACH);
  await server.kill();
  await server.start();
  await Promise.all(talks);

  const read = both.map((page) => page.evaluate(`read(${2 * EACH})`));
  const seen = (await Promise.all(read)) as { got: [number, string][]; states: string[] }[];
  assert.deepEqual(seen[0]!.got, seen[1]!.got);
  assert.deepEqual(seen[0]!.got.map(([index]) => index), Array.from({ length: 2 * EACH }, (_, index) => index + 1));
  for (const name of names) {
    const own = seen[0]!.got.map(([, text]) => text).filter((text) => text.startsWith(name));
    assert.deepEqual(own, Array.from({ length: EACH }, (_, index) => `${name} ${index}`));
  }
  for (const { states } of seen) assert.ok(states.filter((state) => state === "online").length >= 2, "it was away");
});

test("a page of an origin that is not let in does not connect", { timeout: 60_000 }, async (t) => {
  const origin = await pages(t);
  const server = await Server.start(t);
  const page = await open(await Chromium.start(t), origin);
  const connected = page.evaluate(`Promise.race([
    begin(${JSON.stringify(server.url)}, ${JSON.stringify(server.token("alice"))}),
    new Promise((late) => setTimeout(() => late("refused"), 1500)),
  ])`);
  assert.equal(await connected, "refused");
});
