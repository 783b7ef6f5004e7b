import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";

import { Client, type ClientOptions, ChinwagError, Code, type Message, type Positions } from "../src/index.js";
import type { StateChange } from "../src/connection.js";
import { App } from "./support/fakes.js";
import { Server } from "./support/server.js";

const QUICK = { call_backoff: { base_ms: 20, cap_ms: 200 }, connect_backoff: { base_ms: 20, cap_ms: 200 } };
const DEADLINE = { timeout: 60_000 };

function client(t: TestContext, server: Server, user: string, options: Partial<ClientOptions> = {}): Client {
  const made = new Client({ url: server.url, token: server.token(user), ...QUICK, ...options });
  t.after(() => made.close());
  return made;
}

function online(client: Client): Promise<void> {
  return until(client, ({ state }) => state === "online" || state === "polling");
}

function until(client: Client, fits: (change: StateChange) => boolean): Promise<void> {
  return new Promise((resolve) => {
    const off = client.on("state", (change) => {
      if (fits(change)) resolve(off() as never);
    });
  });
}

/** Checks what a client is given, and resolves when it has been given so much. */
function expect(client: Client, messages: number, recalls = 0): { app: App; got: Message[]; done: Promise<void> } {
  const app = new App();
  const got: Message[] = [];
  let recalled = 0;
  const done = new Promise<void>((resolve) => {
    const look = (): void => void (got.length >= messages && recalled >= recalls && resolve());
    client.on("message", (message) => {
      app.message(message);
      got.push(message);
      look();
    });
    client.on("recall", (recall) => {
      app.recall(recall);
      recalled += 1;
      look();
    });
  });
  return { app, got, done };
}

const to = (target: string) => ({ target, target_type: "user" }) as const;

test("two people talk: messages, recalls, read cursors, signals, groups", DEADLINE, async (t) => {
  const server = await Server.start(t);
  const alice = client(t, server, "alice");
  const bob = client(t, server, "bob");
  const connected = [online(alice), online(bob)];
  alice.connect();
  bob.connect();
  await Promise.all(connected);
  assert.equal(alice.user, "alice");

  const heard = expect(bob, 2, 1);
  const own = expect(alice, 2, 1);
  await alice.send({ ...to("bob"), msg: "hi", extra: "x" });
  const receipt = await alice.send({ ...to("bob"), msg: "there" });
  assert.deepEqual([receipt.msg_index, receipt.duplicate], [2, false]);
  assert.deepEqual(await alice.recall({ ...to("bob"), msg_index: 1 }), { recall_index: 1 });
  await Promise.all([heard.done, own.done]);
  assert.deepEqual(heard.app.log, ["alice 1", "alice 2", "alice recall 1"]);
  assert.deepEqual(own.app.log, ["bob 1", "bob 2", "bob recall 1"]);
  assert.deepEqual([heard.got[0]?.msg, heard.got[0]?.extra, heard.got[0]?.sender], ["hi", "x", "alice"]);

  const ack = new Promise((resolve) => alice.on("ack", (ack) => ack.user === "bob" && resolve(ack)));
  await bob.ack({ ...to("alice"), msg_index: 2 });
  assert.deepEqual(await ack, { ...to("bob"), user: "bob", msg_index: 2, unread: 0 });
  assert.deepEqual(await alice.acks(to("bob")), { alice: 2, bob: 2 });

  const signal = new Promise((resolve) => bob.on("signal", resolve));
  await alice.signal({ ...to("bob"), kind: "typing", data: { on: true } });
  assert.deepEqual(await signal, { ...to("alice"), user: "alice", kind: "typing", data: { on: true } });
  assert.deepEqual(await alice.online(["bob", "nobody"]), { bob: true, nobody: false });

  const joined = new Promise((resolve) => bob.on("group", (change) => resolve(change.target)));
  const { group_id } = await alice.group.create({ name: "Friends", members: ["bob"] });
  assert.equal(await joined, group_id);
  assert.equal((await bob.group.info(group_id)).members_count, 2);
  assert.equal((await bob.group.members({ group_id })).members.length, 2);
  await alice.relation.block("bob");
  assert.deepEqual(await alice.relation.blocks(), { user_ids: ["bob"], cursor: "" });
  const blocked = bob.send({ target: "alice", target_type: "user", msg: "x" });
  await assert.rejects(blocked, (error) => (error as ChinwagError).code === Code.forbidden);
  await alice.relation.unblock("bob");
  await alice.group.setDuty(group_id, "bob", 3);
  await bob.group.rename(group_id, "Others");
  assert.deepEqual((await bob.group.list()).groups.map(({ name, duty }) => [name, duty]), [["Others", 3]]);
  await alice.group.mute(group_id, "bob", 4_000_000_000);
  const muted = bob.send({ target: group_id, target_type: "group", msg: "x" });
  await assert.rejects(muted, (error) => (error as ChinwagError).code === Code.forbidden);
  await alice.group.mute(group_id, "bob", 0);
  await bob.group.leave(group_id);
  await assert.rejects(bob.group.leave(group_id), (error) => (error as ChinwagError).code === Code.forbidden);

  const { chats } = await bob.list();
  assert.deepEqual([chats[0]?.target, chats[0]?.last?.msg], ["alice", "there"]);
});

test("history comes from its beginning if it is asked for, and from where it was with positions", DEADLINE, async (t) => {
  const server = await Server.start(t);
  const alice = client(t, server, "alice");
  for (let index = 1; index <= 120; index += 1) await alice.send({ ...to("bob"), msg: `m${index}` });
  await alice.recall({ ...to("bob"), msg_index: 5 });

  const all = client(t, server, "bob", { history: "all" });
  const everything = expect(all, 120, 1);
  all.connect();
  await everything.done;
  assert.deepEqual([everything.got[0]?.msg, everything.got[4]?.msg, everything.got[119]?.msg], ["m1", "", "m120"]);
  const positions = JSON.parse(JSON.stringify(all.positions())) as Positions;
  all.close();

  const newest = client(t, server, "bob");
  const last = expect(newest, 1);
  newest.connect();
  await last.done;
  assert.equal(last.got[0]?.msg, "m120");
  newest.close();

  await alice.send({ ...to("bob"), msg: "m121" });
  const later = client(t, server, "bob", { positions });
  const rest = expect(later, 1);
  later.connect();
  await rest.done;
  assert.deepEqual(rest.app.log, ["alice 121"]);
});

test("more than a replay holds is pulled", DEADLINE, async (t) => {
  const server = await Server.start(t);
  const alice = client(t, server, "alice");
  const connected = online(alice);
  alice.connect();
  await connected;
  const sends = Array.from({ length: 12 }, async () => {
    for (let index = 0; index < 100; index += 1) await alice.send({ target: "bob", target_type: "user", msg: "m" });
  });
  await Promise.all(sends);
  const bob = client(t, server, "bob", { history: "all" });
  const everything = expect(bob, 1200);
  bob.connect();
  await everything.done;
  assert.equal(bob.positions().chats[0]?.msg_index, 1200);
});

for (const transport of ["auto", "poll"] as const) {
  test(`killed and started again while people talk, nobody misses or repeats anything (${transport})`, DEADLINE, async (t) => {
    const server = await Server.start(t);
    const options = { transport, poll_ms: 1_000, retry_ms: 40_000 };
    const users = ["alice", "bob"] as const;
    const clients = users.map((user) => client(t, server, user, options));
    const all = 60;
    const readers = clients.map((client) => expect(client, 2 * all));
    const connected = clients.map(online);
    clients.forEach((client) => client.connect());
    await Promise.all(connected);
    const talks = clients.map(async (client, which) => {
      const other = users[1 - which]!;
      for (let index = 0; index < all; index += 1) {
        await client.send({ ...to(other), msg: `${users[which]} ${index}` });
      }
    });
    for (const end of ["kill", "stop", "kill"] as const) {
      const sofar = readers[0]!.got.length;
      await new Promise<void>((resolve) => {
        const off = clients[0]!.on("message", () => {
          if (readers[0]!.got.length >= Math.min(sofar + 15, 2 * all)) resolve(off() as never);
        });
        if (readers[0]!.got.length >= 2 * all) resolve();
      });
      await server[end]();
      await server.start();
    }
    await Promise.all([...talks, ...readers.map(({ done }) => done)]);
    const texts = readers.map(({ got }) => got.map(({ msg }) => msg));
    assert.deepEqual(texts[0], texts[1]);
    assert.deepEqual(readers[0]!.got.map(({ msg_index }) => msg_index), Array.from({ length: 2 * all }, (_, i) => i + 1));
    for (const user of users) {
      const own = texts[0]!.filter((text) => text.startsWith(user));
      assert.deepEqual(own, Array.from({ length: all }, (_, index) => `${user} ${index}`));
    }
  });
}

test("a token that runs out is replaced without a hole", DEADLINE, async (t) => {
  const server = await Server.start(t);
  let made = 0;
  // The server accepts a token for some seconds longer than it says.
  const token = (): string => server.token("bob", (made += 1) === 1 ? 1 : 3600);
  const bob = client(t, server, "bob", { token });
  const alice = client(t, server, "alice");
  const heard = expect(bob, 2);
  const first = online(bob);
  bob.connect();
  await first;
  await alice.send({ ...to("bob"), msg: "1" });
  const again = until(bob, ({ state }) => state === "online");
  await again;
  assert.equal(made, 2);
  await alice.send({ ...to("bob"), msg: "2" });
  await heard.done;
  assert.deepEqual(heard.app.log, ["alice 1", "alice 2"]);
});
