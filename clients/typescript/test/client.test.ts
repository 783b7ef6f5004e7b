import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";

import type { StreamEvent } from "../src/api.js";
import { ChinwagError, ClosedError, Client, type ClientOptions, Code, ConnectionError } from "../src/index.js";
import type { StateChange } from "../src/connection.js";

const NOW = { base_ms: 0, cap_ms: 0 };
const BOB = { target: "bob", target_type: "user" } as const;

/** A frame that a client sent. */
interface Sent {
  id: number;
  method: string;
  params: Record<string, unknown>;
}

/** The server's end of a socket. */
class FakeSocket {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: (() => void) | null = null;
  readonly sent: Sent[] = [];

  constructor(
    readonly url: string,
    readonly protocols: string[],
    private readonly server: FakeServer,
  ) {
    server.sockets.push(this);
    setImmediate(() => server.onSocket(this));
  }

  send(data: string): void {
    const sent = JSON.parse(data) as Sent;
    this.sent.push(sent);
    setImmediate(() => this.server.onCall(this, sent));
  }

  close(code: number): void {
    setImmediate(() => this.onclose?.({ code, reason: "" }));
  }

  say(frame: StreamEvent | { id: number; result?: unknown; error?: unknown } | string): void {
    this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }

  end(code: number, reason = ""): void {
    this.onclose?.({ code, reason });
  }
}

class FakeServer {
  readonly sockets: FakeSocket[] = [];
  readonly posts: { path: string; body: Record<string, unknown>; token: string }[] = [];
  onSocket: (socket: FakeSocket) => void = (socket) => {
    socket.say({ type: "hello", chats: [], user: "alice", epoch: 1 });
  };
  onCall: (socket: FakeSocket, sent: Sent) => void = (socket, { id }) => socket.say({ id, result: {} });
  onPost: (path: string, body: Record<string, unknown>) => [number, unknown] | "lost" = () => [200, {}];

  client(t: TestContext, options: Partial<ClientOptions> = {}): Client {
    const server = this;
    const WebSocket = class extends FakeSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols, server);
      }
    } as unknown as typeof globalThis.WebSocket;
    const fetch = (async (url: string, init: { body: string; headers: { Authorization: string } }) => {
      await new Promise((resolve) => setImmediate(resolve));
      const { pathname: path } = new URL(url);
      const body = JSON.parse(init.body) as Record<string, unknown>;
      this.posts.push({ path, body, token: init.headers.Authorization.replace("Bearer ", "") });
      const answer = this.onPost(path, body);
      if (answer === "lost") throw new TypeError("fetch failed");
      return new Response(JSON.stringify(answer[1]), { status: answer[0] });
    }) as unknown as typeof globalThis.fetch;
    const url = "http://chat.example.com/";
    const backoffs = { call_backoff: NOW, connect_backoff: NOW };
    const client = new Client({ url, token: "t0", WebSocket, fetch, ...backoffs, ...options });
    t.after(() => client.close());
    return client;
  }
}

/** Resolves with the first state change that fits. */
function state(client: Client, fits: (change: StateChange) => boolean): Promise<StateChange> {
  return new Promise((resolve) => {
    const off = client.on("state", (change) => {
      if (!fits(change)) return;
      off();
      resolve(change);
    });
  });
}

const is = (wanted: string) => (change: StateChange) => change.state === wanted;

test("a send is named once and repeated until it is answered", async (t) => {
  const server = new FakeServer();
  const answers: ReturnType<FakeServer["onPost"]>[] = [
    "lost",
    [503, { code: 10011, msg: "draining", retry_after_ms: 1 }],
    [502, "a proxy's page"],
    [200, { msg_index: 1, timestamp: 1, timestamp_ns: "1", duplicate: true }],
  ];
  server.onPost = () => answers.shift()!;
  const receipt = await server.client(t).send({ ...BOB, msg: "hi" });
  assert.equal(receipt.msg_index, 1);
  const names = new Set(server.posts.map(({ body }) => body["client_msg_id"]));
  assert.deepEqual([server.posts.length, names.size], [4, 1]);
  assert.match(String([...names][0]), /^[0-9a-f-]{36}$/);
});

test("a lawful no is not repeated, and has its code", async (t) => {
  const server = new FakeServer();
  server.onPost = () => [403, { code: 10008, msg: "not a member" }];
  const refused = server.client(t).send({ target: "g", target_type: "group", msg: "hi" });
  await assert.rejects(refused, (error) => error instanceof ChinwagError && error.code === Code.forbidden);
  assert.equal(server.posts.length, 1);
});

test("a call gives up when its time is over", async (t) => {
  const server = new FakeServer();
  server.onPost = () => "lost";
  await assert.rejects(server.client(t, { retry_ms: 0 }).list(), ConnectionError);
  assert.equal(server.posts.length, 1);
  await assert.rejects(server.client(t, { retry_ms: 50 }).list(), ConnectionError);
});

test("what may have been done is not repeated unless that does no harm", async (t) => {
  const server = new FakeServer();
  server.onPost = () => "lost";
  await assert.rejects(server.client(t).group.create({ name: "g" }), ConnectionError);
  await assert.rejects(server.client(t).signal({ ...BOB, kind: "typing" }), ConnectionError);
  assert.equal(server.posts.length, 2);
  const answers: [number, unknown][] = [[429, { code: 10009, msg: "slow down", retry_after_ms: 1 }], [200, { group_id: "g" }]];
  server.onPost = () => answers.shift()!;
  assert.deepEqual(await server.client(t).group.create({ name: "g" }), { group_id: "g" });
});

test("messages to one conversation go one after the other, others beside them", async (t) => {
  const server = new FakeServer();
  let held = 3;
  server.onPost = (_, body) => {
    if (body["target"] === "bob" && held-- > 0) return "lost";
    return [200, { msg_index: 1 }];
  };
  const client = server.client(t);
  await Promise.all([
    client.send({ ...BOB, msg: "1" }),
    client.send({ ...BOB, msg: "2" }),
    client.send({ target: "carol", target_type: "user", msg: "3" }),
  ]);
  const order = server.posts.map(({ body }) => body["msg"]);
  assert.deepEqual(order.filter((msg) => msg !== "3"), ["1", "1", "1", "1", "2"]);
  assert.ok(order.indexOf("3") < 3);
});

test("a token that is refused is asked for again, once", async (t) => {
  const server = new FakeServer();
  server.onPost = (_, __) => {
    const { token } = server.posts.at(-1)!;
    return token === "t2" ? [200, { chats: [] }] : [401, { code: 10004, msg: "expired" }];
  };
  let made = 0;
  const client = server.client(t, { token: async () => `t${(made += 1)}` });
  await Promise.all([client.list(), client.list(), client.list()]);
  assert.equal(made, 2);
  server.onPost = () => [401, { code: 10004, msg: "expired" }];
  await assert.rejects(client.list(), (error) => (error as ChinwagError).code === Code.unauthenticated);
  assert.equal(made, 3);
});

test("the stream is opened with the token as a subprotocol, and calls go over it", async (t) => {
  const server = new FakeServer();
  const client = server.client(t);
  client.connect();
  await state(client, is("online"));
  const [socket] = server.sockets;
  assert.equal(socket!.url, "ws://chat.example.com/im.chat/stream?resume=1");
  assert.deepEqual(socket!.protocols, ["chinwag.v1", "bearer.t0"]);
  assert.equal(client.user, "alice");
  await client.ack({ ...BOB, msg_index: 1 });
  assert.deepEqual(server.posts, []);
  assert.deepEqual(socket!.sent.map(({ method }) => method), ["resume", "ack"]);
});

test("a call whose stream breaks is made again over the next", async (t) => {
  const server = new FakeServer();
  server.onPost = () => "lost";
  server.onCall = (socket, { id, method }) => {
    if (method === "resume") return socket.say({ id, result: { resumed: 0 } });
    if (server.sockets.length === 1) return socket.end(1012, "restart");
    return socket.say({ id, result: { msg_index: 7 } });
  };
  const client = server.client(t, { call_backoff: { base_ms: 5, cap_ms: 5 } });
  client.connect();
  await state(client, is("online"));
  assert.equal((await client.send({ ...BOB, msg: "hi" })).msg_index, 7);
  const names = server.sockets.map(({ sent }) => sent.find(({ method }) => method === "send")?.params["client_msg_id"]);
  assert.equal(names[0], names[1]);
});

test("a stream that ends with 4401 asks for another token; without one the client ends", async (t) => {
  const server = new FakeServer();
  let made = 0;
  const client = server.client(t, { token: () => `t${(made += 1)}` });
  client.connect();
  await state(client, is("online"));
  const again = state(client, is("online"));
  server.sockets[0]!.end(4401, "token expired");
  await again;
  assert.deepEqual(server.sockets.map(({ protocols }) => protocols[1]), ["bearer.t1", "bearer.t2"]);

  const fixed = server.client(t);
  fixed.connect();
  await state(fixed, is("online"));
  const closed = state(fixed, is("closed"));
  // A proxy may take the close frame; the last event says it too.
  server.sockets.at(-1)!.say({ type: "close", code: 4401, msg: "token expired" });
  server.sockets.at(-1)!.end(1006);
  assert.ok((await closed).error instanceof ClosedError);
  await assert.rejects(fixed.list(), ClosedError);
});

test("a silent server is asked, and left if it stays silent", async (t) => {
  const server = new FakeServer();
  const asked: number[] = [];
  server.onCall = (socket, { id, method }) => {
    assert.equal(method, "resume");
    asked.push(server.sockets.length);
    // It answers the first resume and two questions, then nothing.
    if (asked.length <= 3 || server.sockets.length > 1) socket.say({ id, result: { resumed: 0 } });
  };
  const client = server.client(t, { silence_ms: 10, pong_ms: 30 });
  client.connect();
  await state(client, is("online"));
  const waiting = await state(client, is("waiting"));
  assert.match(String(waiting.error), /silent/);
  await state(client, is("online"));
  assert.deepEqual(asked.slice(0, 4), [1, 1, 1, 1]);
});

test("an error that no close follows is an end all the same", async (t) => {
  const server = new FakeServer();
  server.onSocket = (socket) => {
    if (server.sockets.length === 1) socket.onerror?.();
    else socket.say({ type: "hello", chats: [], user: "alice", epoch: 1 });
  };
  const client = server.client(t);
  client.connect();
  await state(client, is("online"));
  assert.equal(server.sockets.length, 2);
});

test("nonsense from the server ends the stream, and unknown words do not", async (t) => {
  const server = new FakeServer();
  const client = server.client(t);
  client.connect();
  await state(client, is("online"));
  const [socket] = server.sockets;
  socket!.say('{"type":"weather","sun":true}');
  socket!.say('{"id":99,"result":{}}');
  socket!.say("[1]");
  socket!.say("null");
  assert.equal(client.state, "online");
  const waiting = state(client, is("waiting"));
  socket!.say("{");
  assert.match(String((await waiting).error), /no JSON/);
});

test("what the server fails to replay is pulled", async (t) => {
  const server = new FakeServer();
  const chats = [{ ...BOB, msg_index: 2, recall_index: 0, ack_index: 0, unread: 2 }];
  server.onSocket = (socket) => socket.say({ type: "hello", chats, user: "alice", epoch: 1 });
  server.onCall = (socket, { id, method, params }) => {
    if (method === "resume") {
      return socket.say({ id, result: { resumed: 0, errors: [{ ...BOB, code: 10011, msg: "not now" }] } });
    }
    const first = params["start_msg_index"] as number;
    const msgs = [1, 2].filter((index) => index >= first).map((msg_index) => ({ ...BOB, msg_index, recall_index: 0 }));
    return socket.say({
      id,
      result: { msgs, recalls: {}, max_msg_index: 2, max_recall_index: 0, min_msg_index: 1, epoch: 1 },
    });
  };
  const client = server.client(t, { history: "all" });
  const got: number[] = [];
  const done = new Promise<void>((resolve) => {
    client.on("message", ({ msg_index }) => {
      got.push(msg_index);
      if (got.length === 2) resolve();
    });
  });
  client.connect();
  await done;
  assert.deepEqual(got, [1, 2]);
  assert.deepEqual(client.positions(), { epoch: 1, whole: true, chats: [{ ...BOB, msg_index: 2, recall_index: 0 }] });
});

test("where sockets never open but calls work, sync does, and goes on where it was", async (t) => {
  const server = new FakeServer();
  server.onSocket = (socket) => socket.end(1006);
  const delta = { ...BOB, recalls: {}, max_msg_index: 1, max_recall_index: 0, min_msg_index: 1, epoch: 1, ack_index: 0, unread: 1, more: false };
  let news = 1;
  server.onPost = (path, { cursors }) => {
    if (path !== "/im.chat/sync") return [200, { chats: [], total_unread: 0, cursor: "" }];
    const had = (cursors as { msg_index: number }[])[0]?.msg_index ?? 0;
    if (had >= 3) return "lost";
    news = had + 1;
    const msgs = [{ ...BOB, msg_index: news, recall_index: 0, msg: "m", extra: "", timestamp: 1, sender: "bob" }];
    return [200, { chats: [{ ...delta, msgs, max_msg_index: news }] }];
  };
  const client = server.client(t);
  const got: number[] = [];
  client.on("message", ({ msg_index }) => got.push(msg_index));
  client.connect();
  await state(client, is("polling"));
  await state(client, is("waiting"));
  assert.deepEqual(got, [1, 2, 3]);
  assert.equal(server.sockets.length, 4, "one more try after calls were seen to work");
});

test("a server that is away is not polled but waited for", async (t) => {
  const server = new FakeServer();
  let away = 8;
  server.onPost = () => "lost";
  server.onSocket = (socket) => {
    if (away-- > 0) socket.end(1006);
    else socket.say({ type: "hello", chats: [], user: "alice", epoch: 1 });
  };
  const client = server.client(t);
  const states: string[] = [];
  client.on("state", ({ state }) => states.push(state));
  client.connect();
  await state(client, is("online"));
  assert.ok(!states.includes("polling"));
});

test("a fixed token that is refused ends the client", async (t) => {
  const server = new FakeServer();
  server.onSocket = (socket) => socket.end(1006);
  server.onPost = () => [401, { code: 10004, msg: "wrong key" }];
  const client = server.client(t);
  client.connect();
  const { error } = await state(client, is("closed"));
  assert.match(String(error), /refused/);
});

test("more conversations than a hello names are looked through", async (t) => {
  const server = new FakeServer();
  const chat = (target: string) => ({ target, target_type: "user" as const, msg_index: 1, recall_index: 0, ack_index: 0, unread: 1 });
  server.onSocket = (socket) => socket.say({ type: "hello", chats: [], user: "alice", more: true, epoch: 1 });
  server.onCall = (socket, { id, method, params }) => {
    const target = params["target"] as string;
    const results: Record<string, unknown> = {
      resume: { resumed: 0 },
      list: params["cursor"] === "" ? { chats: [chat("bob")], cursor: "c" } : { chats: [chat("carol")], cursor: "" },
      pull: {
        msgs: [{ target, target_type: "user", msg_index: 1, recall_index: 0, msg: "m", extra: "", timestamp: 1, sender: target }],
        recalls: {}, max_msg_index: 1, max_recall_index: 0, min_msg_index: 1, epoch: 1,
      },
    };
    socket.say({ id, result: results[method] });
  };
  const client = server.client(t);
  const got: string[] = [];
  const done = new Promise<void>((resolve) => {
    client.on("message", ({ target }) => {
      got.push(target);
      if (got.length === 2) resolve();
    });
  });
  client.connect();
  await done;
  assert.deepEqual(got.sort(), ["bob", "carol"]);
});

test("after close nothing comes, calls fail, and nothing is tried again", async (t) => {
  const server = new FakeServer();
  server.onCall = () => {};
  const client = server.client(t);
  client.connect();
  await state(client, is("online"));
  const call = client.list();
  const closed = state(client, is("closed"));
  client.close();
  assert.equal((await closed).error, undefined);
  await assert.rejects(call, ClosedError);
  await assert.rejects(client.send({ ...BOB, msg: "late" }), ClosedError);
  server.sockets[0]!.say({ type: "ack", ...BOB, content: { user: "bob", msg_index: 1 } });
  assert.equal(server.sockets.length, 1);
});

test("a url has to be one of HTTP", () => {
  assert.throws(() => new Client({ url: "ws://x", token: "t" }), TypeError);
});
