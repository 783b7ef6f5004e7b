/** A server in a few lines: one user's conversations, over a fake socket and a fake fetch. */

import type { Chat, Message, Page, PullRequest, Recall } from "../../src/api.js";
import { keyOf } from "../../src/store.js";

/** What a conversation is on the server. */
export class FakeChat {
  readonly msgs: string[] = [];
  /** Message indices, by recall index less one. */
  readonly recalls: number[] = [];
  /** The oldest message that may be read. */
  min = 1;

  constructor(readonly chat: Chat) {}

  message(msg_index: number): Message {
    const recall_index = this.recalls.indexOf(msg_index) + 1;
    const msg = recall_index > 0 ? "" : this.msgs[msg_index - 1]!;
    return { ...this.chat, msg_index, recall_index, msg, extra: "", timestamp: 1, sender: "bob" };
  }

  page({ direction, start_msg_index, start_recall_index, count }: PullRequest): Page {
    const newest = this.msgs.length;
    const msgs: Message[] = [];
    const step = direction === "after" ? 1 : -1;
    const from = direction === "after" ? Math.max(start_msg_index, this.min) : Math.min(start_msg_index, newest);
    for (let at = from; start_msg_index > 0 && msgs.length < count && at >= this.min && at <= newest; at += step) {
      msgs.push(this.message(at));
    }
    const recalls: Record<string, number> = {};
    const end = Math.min(this.recalls.length, start_recall_index + count - 1);
    for (let at = start_recall_index; start_recall_index > 0 && at <= end; at += 1) {
      recalls[at] = this.recalls[at - 1]!;
    }
    const max = { max_msg_index: newest, max_recall_index: this.recalls.length };
    return { msgs, recalls, ...max, min_msg_index: this.min, epoch: 1 };
  }
}

/** What an app was given, and whether the rule held. */
export class App {
  readonly log: string[] = [];
  /** What it must not show the text of, as `target index`. */
  readonly recalled = new Set<string>();
  readonly #last = new Map<string, { msg: number; recall: number }>();

  #at(chat: Chat): { msg: number; recall: number } {
    const at = this.#last.get(keyOf(chat)) ?? { msg: -1, recall: -1 };
    this.#last.set(keyOf(chat), at);
    return at;
  }

  message(message: Message): void {
    const at = this.#at(message);
    if (at.msg >= 0 && message.msg_index !== at.msg + 1) throw new Error(`${at.msg} then ${message.msg_index}`);
    at.msg = message.msg_index;
    if (message.recall_index > 0) this.recalled.add(`${message.target} ${message.msg_index}`);
    this.log.push(`${message.target} ${message.msg_index}${message.recall_index > 0 ? "r" : ""}`);
  }

  recall(recall: Recall): void {
    const at = this.#at(recall);
    if (at.recall >= 0 && recall.recall_index !== at.recall + 1) {
      throw new Error(`recall ${at.recall} then ${recall.recall_index}`);
    }
    if (at.msg >= 0 && recall.msg_index > at.msg) throw new Error(`recall of ${recall.msg_index} before it`);
    at.recall = recall.recall_index;
    this.recalled.add(`${recall.target} ${recall.msg_index}`);
    this.log.push(`${recall.target} recall ${recall.recall_index}`);
  }

  forget(): void {
    this.#last.clear();
  }
}

/** Numbers in [0, 1) that are the same for a seed (mulberry32, Tommy Ettinger, public domain). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Resolves when everything that is ready has run. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
