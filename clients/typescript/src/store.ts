/**
 * How far each conversation has been read, and the rule that keeps it without holes.
 *
 * A conversation has two numbers: everything up to `msg_index` and `recall_index` was delivered. The
 * next to be delivered is the one behind, and nothing else is. Nothing here waits or calls.
 */

import type { Chat, Position } from "./api.js";

/** What an app keeps to go on where it was. Plain data: `JSON.stringify` it. */
export interface Positions {
  /** Of the history that the positions are in. */
  epoch?: number;
  /** Whether every conversation that there was is among them: another one is new. */
  whole?: boolean;
  chats: Position[];
}

/** What is to be done with what has an index: deliver it, drop it, or fetch what lies before it. */
export type Verdict = "next" | "known" | "gap";

/** How far one conversation has been read. */
export class Reading {
  constructor(
    readonly chat: Chat,
    public msg_index: number,
    public recall_index: number,
  ) {}

  /** Judges a message, and counts it as delivered if it is the next one. */
  message(msg_index: number): Verdict {
    if (msg_index <= this.msg_index) return "known";
    if (msg_index > this.msg_index + 1) return "gap";
    this.msg_index = msg_index;
    return "next";
  }

  /** Judges a recall likewise. One of a message that is still to come waits for it. */
  recall(recall_index: number, msg_index: number): Verdict {
    if (recall_index <= this.recall_index) return "known";
    if (recall_index > this.recall_index + 1 || msg_index > this.msg_index) return "gap";
    this.recall_index = recall_index;
    return "next";
  }

  /** What lies before `msg_index` cannot be read by this user: it is no hole. */
  beginAt(msg_index: number): void {
    this.msg_index = Math.max(this.msg_index, msg_index - 1);
  }

  get position(): Position {
    const { target, target_type } = this.chat;
    return { target, target_type, msg_index: this.msg_index, recall_index: this.recall_index };
  }
}

const isIndex = (index: unknown): index is number => Number.isInteger(index) && (index as number) >= 0;

export class Store {
  /** Of the history that the readings are of; unknown before the first connection. */
  epoch: number | undefined;
  /** Whether every conversation that there was has a reading: another one is new. */
  isWhole: boolean;
  readonly #readings = new Map<string, Reading>();

  constructor(saved?: Positions) {
    this.epoch = saved?.epoch;
    this.isWhole = saved?.whole === true;
    for (const { target, target_type, msg_index, recall_index } of saved?.chats ?? []) {
      if (!isIndex(msg_index) || !isIndex(recall_index)) throw new TypeError(`a bad position of ${target}`);
      this.begin({ target, target_type }, msg_index, recall_index);
    }
  }

  get(chat: Chat): Reading | undefined {
    return this.#readings.get(keyOf(chat));
  }

  /** Everything up to these indices counts as delivered. */
  begin({ target, target_type }: Chat, msg_index: number, recall_index: number): Reading {
    const reading = new Reading({ target, target_type }, msg_index, recall_index);
    this.#readings.set(keyOf(reading.chat), reading);
    return reading;
  }

  clear(): void {
    this.isWhole = false;
    this.#readings.clear();
  }

  positions(): Positions {
    const chats = Array.from(this.#readings.values(), (reading) => reading.position);
    const whole = this.isWhole;
    return this.epoch === undefined ? { whole, chats } : { epoch: this.epoch, whole, chats };
  }
}

/** One text for a conversation: no id contains a control character. */
export function keyOf({ target, target_type }: Chat): string {
  return `${target_type}\n${target}`;
}
