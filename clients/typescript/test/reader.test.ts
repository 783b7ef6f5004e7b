import assert from "node:assert/strict";
import { test } from "node:test";

import type { Chat, Page, PullRequest, Standing } from "../src/api.js";
import { ChinwagError, Code } from "../src/error.js";
import { type History, Reader } from "../src/reader.js";
import { type Positions, Store } from "../src/store.js";
import { App, FakeChat, seeded, settled } from "./support/fakes.js";

const BOB: Chat = { target: "bob", target_type: "user" };

interface Scene {
  store: Store;
  reader: Reader;
  app: App;
  pulls: PullRequest[];
  resets: (Chat | undefined)[];
  problems: unknown[];
}

type Answer = (request: PullRequest) => Page | Promise<Page>;

function scene(answer: Answer, history: History = "newest", positions?: Positions): Scene {
  const store = new Store(positions);
  const app = new App();
  const made: Omit<Scene, "reader"> = { store, app, pulls: [], resets: [], problems: [] };
  const reader = new Reader({
    store,
    history,
    pull: async (request) => {
      made.pulls.push(request);
      await settled();
      return answer(request);
    },
    onMessage: (message) => app.message(message),
    onRecall: (recall) => app.recall(recall),
    onReset: (chat) => {
      app.forget();
      made.resets.push(chat);
    },
    onProblem: (_, error) => made.problems.push(error),
  });
  return { ...made, reader };
}

function chatWith(messages: number, recalls: number[] = []): FakeChat {
  const chat = new FakeChat(BOB);
  for (let index = 1; index <= messages; index += 1) chat.msgs.push(`m${index}`);
  chat.recalls.push(...recalls);
  return chat;
}

function standing(chat: FakeChat): Standing {
  return { ...chat.chat, msg_index: chat.msgs.length, recall_index: chat.recalls.length, ack_index: 0, unread: 0 };
}

const at = (msg_index: number, recall_index: number): Positions => ({
  epoch: 1,
  chats: [{ ...BOB, msg_index, recall_index }],
});

function msg(chat: FakeChat, index: number): Parameters<Reader["take"]>[0] {
  return { type: "msg", ...chat.chat, content: chat.message(index) };
}

test("the next message is delivered, a known one dropped, and a gap pulled first", async () => {
  const chat = chatWith(5);
  const { reader, app, pulls } = scene((request) => chat.page(request), "newest", at(1, 0));
  reader.take(msg(chat, 2));
  reader.take(msg(chat, 2));
  reader.take(msg(chat, 1));
  reader.take(msg(chat, 5));
  await reader.idle();
  assert.deepEqual(app.log, ["bob 2", "bob 3", "bob 4", "bob 5"]);
  assert.equal(pulls.length, 1);
});

test("a hello says what to resume, and where what is unknown begins", async () => {
  const chat = chatWith(7, [3]);
  const hello = { user: "alice", chats: [standing(chat)], epoch: 1 };
  const known = scene((request) => chat.page(request), "newest", at(4, 1));
  assert.deepEqual(known.reader.hello(hello), [{ ...BOB, msg_index: 4, recall_index: 1 }]);
  const current = scene((request) => chat.page(request), "newest", at(7, 1));
  assert.deepEqual(current.reader.hello(hello), []);
  const newest = scene((request) => chat.page(request));
  assert.deepEqual(newest.reader.hello(hello), [{ ...BOB, msg_index: 6, recall_index: 1 }]);
  const all = scene((request) => chat.page(request), "all");
  assert.deepEqual(all.reader.hello(hello), [{ ...BOB, msg_index: 0, recall_index: 0 }]);
});

test("behind is pulled page by page, messages before their recalls", async () => {
  const chat = chatWith(120, [110, 2]);
  const { reader, app, pulls } = scene((request) => chat.page(request), "newest", at(0, 0));
  reader.take({ type: "behind", chats: [{ ...BOB, msg_index: 120, recall_index: 2 }] });
  await reader.idle();
  assert.equal(app.log.length, 122);
  assert.deepEqual(app.log.slice(-2), ["bob recall 1", "bob recall 2"]);
  assert.equal(pulls.length, 4);
});

test("a recall of a message that has not come waits for the message", async () => {
  const chat = chatWith(3, [3]);
  const { reader, app } = scene((request) => chat.page(request), "newest", at(1, 0));
  reader.take({ type: "behind", chats: [{ ...BOB, msg_index: 1, recall_index: 1 }] });
  await reader.idle();
  assert.deepEqual(app.log, ["bob 2", "bob 3r", "bob recall 1"]);
});

test("what may not be read is no hole", async () => {
  const chat = chatWith(9);
  chat.min = 7;
  const { reader, app } = scene((request) => chat.page(request), "all");
  reader.take(msg(chat, 9));
  await reader.idle();
  assert.deepEqual(app.log, ["bob 7", "bob 8", "bob 9"]);
  chat.min = 99;
  reader.take({ type: "behind", chats: [{ ...BOB, msg_index: 10, recall_index: 0 }] });
  await reader.idle();
});

test("an unknown conversation begins with its event, after the recalls that were before it", async () => {
  const chat = chatWith(8, [1, 7]);
  const { reader, app, store } = scene((request) => chat.page(request));
  reader.take(msg(chat, 6));
  chat.msgs.push("m9");
  chat.recalls.push(9);
  reader.take(msg(chat, 9));
  await reader.idle();
  // Recalls 1 to 3 were there when it began: the messages come as those left them.
  assert.deepEqual(app.log, ["bob 6", "bob 7r", "bob 8", "bob 9r"]);
  assert.equal(store.get(BOB)?.recall_index, 3);
});

test("an unknown conversation that begins needs no pull", () => {
  const chat = chatWith(1);
  const { reader, app, pulls } = scene(() => assert.fail("a pull"));
  reader.take(msg(chat, 1));
  assert.deepEqual([app.log, pulls], [["bob 1"], []]);
});

test("a conversation that comes after everything was seen begins with its first message", async () => {
  const chat = chatWith(5, [2]);
  chat.min = 2;
  const { reader, app, store } = scene((request) => chat.page(request));
  assert.deepEqual(reader.hello({ user: "alice", chats: [], epoch: 1 }), []);
  assert.equal(store.positions().whole, true);
  const missed = reader.hello({ user: "alice", chats: [standing(chat)], epoch: 1 });
  assert.deepEqual(missed, [{ ...BOB, msg_index: 0, recall_index: 0 }]);
  reader.behind(standing(chat));
  await reader.idle();
  assert.deepEqual(app.log, ["bob 2r", "bob 3", "bob 4", "bob 5", "bob recall 1"]);
});

test("another epoch begins anew", async () => {
  const chat = chatWith(3);
  const { reader, app, resets, store } = scene((request) => chat.page(request), "newest", at(50, 9));
  const cursors = reader.hello({ user: "alice", chats: [standing(chat)], epoch: 2 });
  assert.deepEqual([resets, cursors], [[undefined], [{ ...BOB, msg_index: 2, recall_index: 0 }]]);
  reader.take(msg(chat, 3));
  assert.deepEqual(app.log, ["bob 3"]);
  assert.equal(store.positions().epoch, 2);
});

test("a history that got shorter without another epoch is found out, and a late hello is not taken for one", async () => {
  const chat = chatWith(3);
  const short = scene((request) => chat.page(request), "newest", at(50, 0));
  short.reader.hello({ user: "alice", chats: [standing(chat)], epoch: 1 });
  await short.reader.idle();
  assert.deepEqual([short.resets, short.app.log], [[BOB], ["bob 3"]]);
  const late = scene((request) => chat.page(request), "newest", at(3, 0));
  late.reader.hello({ user: "alice", chats: [{ ...standing(chat), msg_index: 2 }], epoch: 1 });
  await late.reader.idle();
  assert.deepEqual([late.resets, late.app.log], [[], []]);
});

test("a conversation that is not the caller's any more is given up", async () => {
  const chat = chatWith(5);
  const no = (): never => {
    throw new ChinwagError(Code.forbidden, "not a member");
  };
  const { reader, app, problems } = scene(no, "newest", at(1, 0));
  reader.take(msg(chat, 5));
  await reader.idle();
  assert.deepEqual([app.log, problems.length], [[], 1]);
});

test("a server that names what it does not have is not asked for ever", async () => {
  const chat = chatWith(5);
  const { reader, app, pulls } = scene((request) => chat.page(request), "newest", at(4, 0));
  reader.take({ type: "behind", chats: [{ ...BOB, msg_index: 500, recall_index: 500 }] });
  await reader.idle();
  assert.deepEqual(app.log, ["bob 5"]);
  assert.ok(pulls.length <= 4, `${pulls.length} pulls`);
});

test("nothing comes after close, and positions say what came", async () => {
  const chat = chatWith(50);
  const { reader, app, store } = scene((request) => chat.page(request), "newest", at(0, 0));
  const message = app.message.bind(app);
  app.message = (taken) => {
    message(taken);
    if (taken.msg_index === 10) reader.close();
  };
  reader.take({ type: "behind", chats: [{ ...BOB, msg_index: 50, recall_index: 0 }] });
  await reader.idle();
  await settled();
  await settled();
  assert.deepEqual([app.log.length, store.get(BOB)?.msg_index], [10, 10]);
});

test("whatever is lost on the way, each index comes once and in order", async () => {
  for (let seed = 1; seed <= 100; seed += 1) {
    await randomReadings(seed).catch((error: unknown) => {
      throw new Error(`seed ${seed}`, { cause: error });
    });
  }
});

test("without the reader the same losses are noticed", () => {
  const chat = chatWith(5);
  const app = new App();
  app.message(chat.message(1));
  assert.throws(() => app.message(chat.message(3)));
  assert.throws(() => app.message(chat.message(1)));
});

/** A writer, and a stream that loses events, says behind, or breaks; the reader must not notice. */
async function randomReadings(seed: number): Promise<void> {
  const random = seeded(seed);
  const chats = ["bob", "carol"].map((target) => new FakeChat({ target, target_type: "user" }));
  const find = (request: Chat): FakeChat => chats.find((chat) => chat.chat.target === request.target)!;
  const flaky = (request: PullRequest): Page => {
    if (random() < 0.02) throw new ChinwagError(Code.unavailable, "not now");
    return find(request).page(request);
  };
  const history = random() < 0.5 ? "all" : "newest";
  const { reader, app, store } = scene(
    async (request) => {
      // As the client does: what is worth it is repeated before anybody hears of it.
      for (;;) {
        try {
          return flaky(request);
        } catch {
          await settled();
        }
      }
    },
    history,
  );
  let isBehind = false;
  const write = (chat: FakeChat): Parameters<Reader["take"]>[0] => {
    const free = chat.msgs.flatMap((_, place) => (chat.recalls.includes(place + 1) ? [] : [place + 1]));
    if (random() < 0.3 && free.length > 0) {
      const msg_index = free[Math.floor(random() * free.length)]!;
      chat.recalls.push(msg_index);
      const content = { msg_index, recall_index: chat.recalls.length, by: "bob" };
      return { type: "recall", ...chat.chat, content };
    }
    chat.msgs.push("text");
    return msg(chat, chat.msgs.length);
  };
  const hello = (): void => {
    isBehind = false;
    reader.hello({ user: "alice", chats: chats.map(standing), epoch: 1 }).forEach((cursor) => {
      // Some of the replay comes, the rest has to be pulled.
      for (let index = cursor.msg_index + 1; index <= find(cursor).msgs.length; index += 1) {
        if (random() < 0.8) reader.take(msg(find(cursor), index));
      }
      reader.behind(standing(find(cursor)));
    });
  };
  hello();
  for (let step = 0; step < 150; step += 1) {
    const event = write(chats[Math.floor(random() * chats.length)]!);
    if (random() < 0.05) isBehind = true;
    if (!isBehind) reader.take(event);
    if (isBehind && random() < 0.2) {
      reader.take({ type: "behind", chats: chats.map(standing) });
      isBehind = false;
    }
    if (random() < 0.03) hello();
    if (random() < 0.3) await settled();
  }
  hello();
  await reader.idle();
  for (const chat of chats) {
    const reading = store.get(chat.chat);
    assert.deepEqual([reading?.msg_index, reading?.recall_index], [chat.msgs.length, chat.recalls.length]);
    const last = app.log.filter((line) => line.startsWith(`${chat.chat.target} `) && !line.includes("recall"));
    if (history === "all") assert.equal(last.length, chat.msgs.length);
    for (const line of last.map((line) => line.replace(/r$/, ""))) {
      const isRecalled = chat.recalls.includes(Number(line.split(" ")[1]));
      assert.equal(app.recalled.has(line), isRecalled, `${line} shows what was taken back`);
    }
  }
}
