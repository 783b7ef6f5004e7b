/**
 * From what a stream says to what the app gets: each message and each recall once, in order, without
 * a hole.
 *
 * An event is delivered if it is the next of its conversation. Otherwise the conversation catches up:
 * pages are pulled from where it is to where it has to be, first the messages and then the recalls,
 * and events that come meanwhile only say how far that is. How pages are pulled, and how the stream
 * comes, is none of this file's business.
 */

import type {
  Chat,
  ChatDelta,
  Hello,
  Message,
  Page,
  Position,
  PullRequest,
  Recall,
  Standing,
  StreamEvent,
} from "./api.js";
import { Backoff, sleep } from "./backoff.js";
import { Closing } from "./closing.js";
import { ChinwagError, ClosedError, Code } from "./error.js";
import { keyOf, type Reading, type Store } from "./store.js";

/** Messages, and recalls, of one pull: the most that the server gives. */
const PAGE = 50;
/** Conversations that are pulled at a time: a reconnection asks the server for no more. */
const PULLS_MAX = 4;
/** An index behind every other: where the newest message is looked for. */
const NEWEST = 0xffff_ffff;
/** Between tries of a conversation whose pulls fail again and again. */
const PULL_BACKOFF = { base_ms: 1_000, cap_ms: 30_000 };

/**
 * Where conversations begin that are there when the reader first looks. Those that come later begin
 * with their first message: all of it is news.
 */
export type History = "newest" | "all";

export interface ReaderOptions {
  store: Store;
  history: History;
  /** Pulls a page; repeats what is worth it. */
  pull(request: PullRequest): Promise<Page>;
  onMessage(message: Message): void;
  onRecall(recall: Recall): void;
  /** History was taken back: of one conversation, or of all. */
  onReset(chat: Chat | undefined): void;
  /** A conversation cannot be read up to where it is. */
  onProblem(chat: Chat, error: unknown): void;
}

/** Up to where a conversation has to be read. */
interface Goal {
  msg_index: number;
  recall_index: number;
  /** Whether to look even if it is there: the server has said less than what was read. */
  look: boolean;
}

/** A conversation on its way. */
interface CatchUp {
  chat: Chat;
  goal: Goal;
  /** Where it begins if it has no position: at this message, or at the newest. */
  from: number;
  /** Stops with everything that was read. */
  obsolete: boolean;
}

export class Reader {
  readonly #catchUps = new Map<string, CatchUp>();
  readonly #waiting: CatchUp[] = [];
  #running = 0;
  #idle: (() => void)[] = [];
  readonly #closed = new Closing();

  constructor(private readonly options: ReaderOptions) {}

  /** Ends everything under way. */
  close(): void {
    this.#closed.close();
    this.#abandon();
  }

  /** Resolves when no conversation is catching up. */
  async idle(): Promise<void> {
    if (this.#catchUps.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Takes a hello; what comes back is what the server is to replay. */
  hello(hello: Hello): Position[] {
    this.epoch(hello.epoch);
    const missed = hello.chats.flatMap((standing) => this.stands(standing) ?? []);
    if (hello.more !== true) this.sawAll();
    return missed;
  }

  /** Every conversation was there to be seen: one that was not is new. */
  sawAll(): void {
    this.options.store.isWhole = true;
  }

  get #beginsWithFirst(): boolean {
    return this.options.history === "all" || this.options.store.isWhole;
  }

  /**
   * Takes the number of the history. Another one than before makes everything that was read part of
   * a past that is no more: reading begins anew.
   */
  epoch(epoch: number | undefined): void {
    const { store } = this.options;
    if (epoch === undefined || epoch === store.epoch) return;
    const isFirst = store.epoch === undefined;
    store.epoch = epoch;
    if (isFirst) return;
    this.#abandon();
    store.clear();
    this.options.onReset(undefined);
  }

  /** Takes where a conversation stands; a position comes back if something lies behind it. */
  stands(standing: Standing): Position | undefined {
    const { store } = this.options;
    const { msg_index, recall_index } = standing;
    const known = store.get(standing);
    const under_way = this.#catchUps.get(keyOf(standing));
    if (under_way !== undefined) {
      raise(under_way.goal, msg_index, recall_index);
      return undefined;
    }
    if (known === undefined) {
      const isAll = this.#beginsWithFirst;
      const begun = store.begin(standing, isAll ? 0 : Math.max(0, msg_index - 1), isAll ? 0 : recall_index);
      return msg_index > 0 || begun.recall_index < recall_index ? begun.position : undefined;
    }
    if (msg_index < known.msg_index || recall_index < known.recall_index) {
      this.#catchUp(standing, { msg_index, recall_index, look: true });
      return undefined;
    }
    return msg_index > known.msg_index || recall_index > known.recall_index ? known.position : undefined;
  }

  /** Takes an event that has an index. */
  take(event: StreamEvent): void {
    if (event.type === "msg") this.#message(event.content);
    else if (event.type === "recall") this.#recall({ ...chatOf(event), ...event.content });
    else if (event.type === "behind") for (const position of event.chats) this.behind(position);
  }

  /** Reads a conversation up to a position. */
  behind({ target, target_type, msg_index, recall_index }: Position): void {
    this.#catchUp({ target, target_type }, { msg_index, recall_index, look: false });
  }

  /** Takes a conversation of a sync. */
  delta(delta: ChatDelta): void {
    this.epoch(delta.epoch);
    const { max_msg_index: msg_index, max_recall_index: recall_index } = delta;
    const standing = { ...chatOf(delta), msg_index, recall_index, ack_index: 0, unread: 0 };
    const position = this.stands(standing);
    if (position === undefined) return;
    const reading = this.options.store.get(delta);
    if (reading !== undefined && !this.#catchUps.has(keyOf(delta))) this.#read(reading, delta);
    this.behind(standing);
  }

  #message(message: Message): void {
    const { store } = this.options;
    const under_way = this.#catchUps.get(keyOf(message));
    if (under_way !== undefined) return raise(under_way.goal, message.msg_index, 0);
    let reading = store.get(message);
    // The first message of a conversation has nothing before it; another one may have recalls.
    if (reading === undefined && (message.msg_index === 1 || this.#beginsWithFirst)) {
      reading = store.begin(message, 0, 0);
    }
    const verdict = reading?.message(message.msg_index) ?? "gap";
    if (verdict === "next") this.options.onMessage(message);
    if (verdict !== "gap") return;
    const goal = { msg_index: message.msg_index, recall_index: 0, look: false };
    this.#catchUp(message, goal, message.msg_index);
  }

  #recall(recall: Recall): void {
    const under_way = this.#catchUps.get(keyOf(recall));
    if (under_way !== undefined) return raise(under_way.goal, 0, recall.recall_index);
    const verdict = this.options.store.get(recall)?.recall(recall.recall_index, recall.msg_index) ?? "gap";
    if (verdict === "next") this.options.onRecall(recall);
    if (verdict !== "gap") return;
    this.#catchUp(recall, { msg_index: 0, recall_index: recall.recall_index, look: false });
  }

  #catchUp({ target, target_type }: Chat, goal: Goal, from = NEWEST): void {
    const key = keyOf({ target, target_type });
    const under_way = this.#catchUps.get(key);
    if (under_way !== undefined) {
      under_way.goal.look ||= goal.look;
      return raise(under_way.goal, goal.msg_index, goal.recall_index);
    }
    const reading = this.options.store.get({ target, target_type });
    if (this.#closed.isClosed || (reading !== undefined && isReached(reading, goal))) return;
    const catchUp = { chat: { target, target_type }, goal: { ...goal }, from, obsolete: false };
    this.#catchUps.set(key, catchUp);
    this.#waiting.push(catchUp);
    this.#runNext();
  }

  #runNext(): void {
    while (this.#running < PULLS_MAX) {
      const catchUp = this.#waiting.shift();
      if (catchUp === undefined) return;
      this.#running += 1;
      void this.#run(catchUp).finally(() => {
        this.#running -= 1;
        this.#runNext();
      });
    }
  }

  async #run(catchUp: CatchUp): Promise<void> {
    const backoff = new Backoff(PULL_BACKOFF);
    while (!catchUp.obsolete) {
      try {
        if (await this.#step(catchUp)) break;
        backoff.reset();
      } catch (error) {
        if (catchUp.obsolete || error instanceof ClosedError) break;
        this.options.onProblem(catchUp.chat, error);
        if (isFinal(error)) break;
        await sleep(backoff.next(), this.#closed);
      }
    }
    if (catchUp.obsolete) return;
    this.#catchUps.delete(keyOf(catchUp.chat));
    this.#tellIdle();
  }

  /** Pulls a page; whether the conversation is where it has to be. */
  async #step(catchUp: CatchUp): Promise<boolean> {
    const { chat, goal } = catchUp;
    const { store, pull } = this.options;
    const reading = store.get(chat) ?? (await this.#begin(catchUp));
    if (reading === undefined || catchUp.obsolete || isReached(reading, goal)) return true;
    const request = requestFor(reading, goal);
    const page = await pull(request);
    if (catchUp.obsolete) return true;
    this.epoch(page.epoch);
    if (catchUp.obsolete) return true;
    if (page.max_msg_index < reading.msg_index || page.max_recall_index < reading.recall_index) {
      const { max_msg_index: msg_index, max_recall_index: recall_index } = page;
      const isAll = this.options.history === "all";
      this.options.onReset(chat);
      store.begin(chat, isAll ? 0 : Math.max(0, msg_index - 1), isAll ? 0 : recall_index);
      catchUp.goal = { msg_index, recall_index, look: false };
      return false;
    }
    goal.look = false;
    const { msg_index, recall_index } = reading;
    const ahead = this.#read(reading, page);
    raise(goal, ahead, 0);
    if (ahead === 0 && reading.msg_index === msg_index && reading.recall_index === recall_index) {
      // The server has nothing there: whoever said so was wrong, and asking again would not end.
      goal.msg_index = Math.min(goal.msg_index, msg_index);
      goal.recall_index = Math.min(goal.recall_index, recall_index);
    }
    return false;
  }

  /**
   * Gives a conversation without a position its beginning. Everything up to the newest message of
   * this moment is then pulled, so that it is read as it is after the recalls that are skipped.
   */
  async #begin(catchUp: CatchUp): Promise<Reading | undefined> {
    const { chat, goal, from } = catchUp;
    const { store, pull } = this.options;
    if (this.#beginsWithFirst) return store.begin(chat, 0, 0);
    const page = await pull({
      ...chat,
      direction: "before",
      start_msg_index: NEWEST,
      start_recall_index: 0,
      count: 1,
    });
    if (catchUp.obsolete) return undefined;
    this.epoch(page.epoch);
    if (catchUp.obsolete) return undefined;
    const first = Math.min(from, Math.max(1, page.max_msg_index));
    raise(goal, page.max_msg_index, page.max_recall_index);
    return store.begin(chat, first - 1, page.max_recall_index);
  }

  /**
   * Delivers what is the next in a page, and what is behind that. What comes back is the message that
   * has to be read before a recall of it; 0: none.
   */
  #read(reading: Reading, page: Page): number {
    if (page.min_msg_index > 0) reading.beginAt(Math.min(page.min_msg_index, page.max_msg_index + 1));
    for (const message of page.msgs) {
      // The app may close the client while it takes a message.
      if (this.#closed.isClosed) return 0;
      if (reading.message(message.msg_index) === "next") this.options.onMessage(message);
    }
    // The keys are numbers, which come in ascending order.
    for (const [recall, msg_index] of Object.entries(page.recalls)) {
      if (this.#closed.isClosed) return 0;
      const recall_index = Number(recall);
      const verdict = reading.recall(recall_index, msg_index);
      if (verdict === "next") this.options.onRecall({ ...reading.chat, msg_index, recall_index, by: "" });
      if (verdict === "gap") return msg_index > reading.msg_index ? msg_index : 0;
    }
    return 0;
  }

  /** Stops every catch-up: what they bring is of no use any more. */
  #abandon(): void {
    for (const catchUp of this.#catchUps.values()) catchUp.obsolete = true;
    this.#catchUps.clear();
    this.#waiting.length = 0;
    this.#tellIdle();
  }

  #tellIdle(): void {
    if (this.#catchUps.size > 0) return;
    const idle = this.#idle;
    this.#idle = [];
    for (const tell of idle) tell();
  }
}

function requestFor({ chat, msg_index, recall_index }: Reading, goal: Goal): PullRequest {
  const isMessages = msg_index < goal.msg_index || goal.look;
  return {
    target: chat.target,
    target_type: chat.target_type,
    direction: "after",
    start_msg_index: isMessages ? msg_index + 1 : 0,
    start_recall_index: isMessages ? 0 : recall_index + 1,
    count: PAGE,
  };
}

function isReached({ msg_index, recall_index }: Reading, goal: Goal): boolean {
  return !goal.look && msg_index >= goal.msg_index && recall_index >= goal.recall_index;
}

function raise(goal: Goal, msg_index: number, recall_index: number): void {
  goal.msg_index = Math.max(goal.msg_index, msg_index);
  goal.recall_index = Math.max(goal.recall_index, recall_index);
}

/** Whether no later pull can do better: the conversation is not the caller's any more. */
function isFinal(error: unknown): boolean {
  if (!(error instanceof ChinwagError)) return false;
  return error.code !== Code.unavailable && error.code !== Code.too_fast && error.code !== Code.broken;
}

function chatOf({ target, target_type }: Chat): Chat {
  return { target, target_type };
}
