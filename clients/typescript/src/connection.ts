/**
 * Keeps the app connected: one stream after the other, and where there can be none, a sync after the
 * other.
 *
 * What comes is handed to the reader; how a socket works, and what is delivered, is none of this
 * file's business.
 */

import type {
  Ack,
  ChatList,
  GroupChange,
  Hello,
  Position,
  Resumed,
  Signal,
  Standing,
  StreamEvent,
  SyncRequest,
  Synced,
} from "./api.js";
import { Backoff, type BackoffOptions, sleep } from "./backoff.js";
import { isUnauthenticated } from "./caller.js";
import { Closing } from "./closing.js";
import { ChinwagError, ClosedError } from "./error.js";
import type { Reader } from "./reader.js";
import { type Ending, Socket } from "./socket.js";
import { keyOf, type Store } from "./store.js";
import type { Tokens } from "./token.js";

/** A close code of the server: the token's time is over. */
const TOKEN_EXPIRED = 4401;
/** Sockets that fail to open, one after the other, before sync has to do. */
const OPENINGS_MAX = 3;
/** A stream that lasted so long was a good one: the next failure is the first again. */
const STABLE_MS = 10_000;
/** How long sync does before a socket is tried again. */
const POLLING_MS = 300_000;
/** Bytes of positions in one call: half of what the server takes unless it is told otherwise. */
const POSITIONS_BYTES_MAX = 32 * 1024;
/** A replay goes at the pace of the line; a dead one is noticed otherwise. */
const RESUME_TIMEOUT_MS = 600_000;
/** Between two walks through the list, and the longest wait for a conversation that cannot catch up. */
const PAUSE_MS = 5_000;
const LIST_PAGE = 200;
/** A million conversations. */
const LIST_PAGES_MAX = 5_000;

/**
 * `connecting`; `online`, a stream is there; `polling`, none can be had and sync does instead;
 * `waiting` for the next try; `closed` for good.
 */
export type State = "connecting" | "online" | "polling" | "waiting" | "closed";

export interface StateChange {
  state: State;
  /** When the next try is made. */
  retry_in_ms?: number;
  /** Why it is so. */
  error?: Error;
}

/** What is handed on as it comes. */
export interface PassedOn {
  hello: Hello;
  ack: Ack;
  signal: Signal;
  group: GroupChange;
  state: StateChange;
}

export interface ConnectionOptions {
  url: string;
  tokens: Tokens;
  reader: Reader;
  store: Store;
  /** Absent: only sync. */
  WebSocket: typeof globalThis.WebSocket | undefined;
  backoff: BackoffOptions;
  silence_ms: number;
  pong_ms: number;
  /** How long the server may hold a sync. */
  poll_ms: number;
  closed: Closing;
  /** Any call over HTTP, once: whether that works. */
  probe(): Promise<unknown>;
  /** Once. */
  sync(request: SyncRequest): Promise<Synced>;
  list(cursor: string, count: number): Promise<ChatList>;
  emit<K extends keyof PassedOn>(name: K, value: PassedOn[K]): void;
}

export class Connection {
  #socket: Socket | undefined;
  #failedOpenings = 0;
  /** Whether calls over HTTP worked while sockets did not open. */
  #httpWorks = false;
  #wake = new Closing();
  #walk: Promise<void> | undefined;
  #walkAgain = false;
  readonly #backoff: Backoff;

  constructor(private readonly options: ConnectionOptions) {
    this.#backoff = new Backoff(options.backoff);
    options.closed.onClose(() => {
      this.#wake.close();
      this.#socket?.close();
    });
  }

  /** The stream, if calls can be made over it. */
  get socket(): Socket | undefined {
    return this.#socket?.isOpen ? this.#socket : undefined;
  }

  /** Tries again now instead of later. */
  wake(): void {
    this.#wake.close();
  }

  /** Connects until it is closed; an error comes back if it cannot go on. */
  async run(): Promise<Error | undefined> {
    const { closed, emit } = this.options;
    while (!closed.isClosed) {
      try {
        const error = this.#mayStream() ? await this.#stream() : await this.#poll();
        if (closed.isClosed) break;
        const retry_in_ms = this.#backoff.next();
        emit("state", { state: "waiting", retry_in_ms, error });
        this.#wake = new Closing();
        await sleep(retry_in_ms, this.#wake);
      } catch (error) {
        if (error instanceof ClosedError) return closed.isClosed ? undefined : error;
        throw error;
      }
    }
    return undefined;
  }

  #mayStream(): boolean {
    return this.options.WebSocket !== undefined && !(this.#failedOpenings >= OPENINGS_MAX && this.#httpWorks);
  }

  /** One stream from its beginning to its end. */
  async #stream(): Promise<Error> {
    const { tokens, emit } = this.options;
    emit("state", { state: "connecting" });
    let token: string;
    try {
      token = await tokens.get();
    } catch (cause) {
      return new Error("there is no token", { cause });
    }
    if (this.options.closed.isClosed) throw new ClosedError("the client is closed");
    const began = Date.now();
    const { code, why, wasOpen } = await this.#socketWith(token);
    if (wasOpen && Date.now() - began > STABLE_MS) this.#backoff.reset();
    else if (wasOpen) this.#backoff.ease();
    // Why a socket does not open is not told to a page: it may be the token.
    if (!wasOpen || code === TOKEN_EXPIRED) await tokens.refuse(token);
    if (code === TOKEN_EXPIRED && !tokens.isRenewable) throw new ClosedError("the token has expired");
    if (wasOpen) this.#failedOpenings = 0;
    else await this.#failedToOpen();
    return new Error(why === "" ? `the stream ended (${code})` : `the stream ended (${code}): ${why}`);
  }

  async #failedToOpen(): Promise<void> {
    this.#failedOpenings += 1;
    if (this.#failedOpenings < OPENINGS_MAX || this.#httpWorks) return;
    try {
      await this.options.probe();
      this.#httpWorks = true;
      // The server may have come back just now.
      this.#failedOpenings = OPENINGS_MAX - 1;
    } catch (error) {
      this.#endIfRefused(error);
    }
  }

  /** There is no use in going on with a token that is refused when there is no other. */
  #endIfRefused(error: unknown): void {
    if (error instanceof ClosedError) throw error;
    if (isUnauthenticated(error) && !this.options.tokens.isRenewable) {
      throw new ClosedError("the token is refused", { cause: error });
    }
  }

  #socketWith(token: string): Promise<Ending> {
    const { WebSocket, url, silence_ms, pong_ms } = this.options;
    if (WebSocket === undefined) throw new Error("there is no WebSocket");
    return new Promise((resolve) => {
      const onHello = (hello: Hello, socket: Socket): void => this.#hello(hello, socket);
      const onEvent = (event: StreamEvent): void => this.#event(event);
      const onEnd = (ending: Ending): void => {
        this.#socket = undefined;
        resolve(ending);
      };
      try {
        this.#socket = new Socket({ WebSocket, url, token, silence_ms, pong_ms, onHello, onEvent, onEnd });
      } catch (error) {
        resolve({ code: 1006, why: String(error), wasOpen: false });
      }
    });
  }

  #hello(hello: Hello, socket: Socket): void {
    const { reader, emit } = this.options;
    emit("hello", hello);
    emit("state", { state: "online" });
    if (!socket.isOpen) return;
    const standings = new Map(hello.chats.map((standing) => [keyOf(standing), standing]));
    for (const cursors of chunks(reader.hello(hello))) void this.#resume(socket, cursors, standings);
    if (hello.more === true) this.#walkThrough();
  }

  /** Has the server replay; what it does not is pulled. */
  async #resume(socket: Socket, cursors: Position[], standings: Map<string, Standing>): Promise<void> {
    let failed: { target: string; target_type: "user" | "group" }[];
    try {
      const resumed = (await socket.call("resume", { cursors }, RESUME_TIMEOUT_MS)) as Resumed;
      failed = resumed.errors ?? [];
    } catch (error) {
      // Without a connection the next hello says it all again.
      if (!(error instanceof ChinwagError)) return;
      failed = cursors;
    }
    for (const chat of failed) {
      const standing = standings.get(keyOf(chat));
      if (standing !== undefined) this.options.reader.behind(standing);
    }
  }

  #event(event: StreamEvent): void {
    const { emit, reader } = this.options;
    switch (event.type) {
      case "msg":
      case "recall":
        return reader.take(event);
      case "behind":
        return event.chats.length === 0 ? this.#walkThrough() : reader.take(event);
      case "ack":
      case "signal":
      case "group": {
        const { type, target, target_type, content } = event;
        return emit(type, { target, target_type, ...content } as never);
      }
      default:
        // Of a later server.
        return;
    }
  }

  /** Looks through the whole list for what moved: more did than an event can name. */
  #walkThrough(): void {
    if (this.#walk !== undefined) {
      this.#walkAgain = true;
      return;
    }
    this.#walk = this.#walkList().then(
      () => {
        this.#walk = undefined;
        if (!this.#walkAgain) return;
        this.#walkAgain = false;
        this.#walkThrough();
      },
      () => {
        this.#walk = undefined;
        this.#walkAgain = false;
        // A new hello says what this would have found.
        this.#socket?.close(4000, "the list cannot be read");
      },
    );
  }

  async #walkList(): Promise<void> {
    const { reader, list } = this.options;
    let cursor = "";
    for (let page = 0; page < LIST_PAGES_MAX; page += 1) {
      const chats = await list(cursor, LIST_PAGE);
      for (const standing of chats.chats) {
        if (reader.stands(standing) !== undefined) reader.behind(standing);
      }
      cursor = chats.cursor;
      if (cursor === "") return reader.sawAll();
    }
  }

  /** One sync after the other, until one fails or it is time to look for a stream again. */
  async #poll(): Promise<Error> {
    const { WebSocket, emit, poll_ms, closed } = this.options;
    const until = WebSocket === undefined ? Infinity : Date.now() + POLLING_MS;
    for (let wait_ms = 0; Date.now() < until && !closed.isClosed; wait_ms = poll_ms) {
      try {
        await this.#pollOnce(wait_ms);
      } catch (error) {
        this.#endIfRefused(error);
        this.#failedOpenings = 0;
        this.#httpWorks = false;
        return error instanceof Error ? error : new Error(String(error));
      }
      if (wait_ms === 0) emit("state", { state: "polling" });
      this.#backoff.reset();
    }
    // One try of a stream; if it fails, back to this.
    this.#failedOpenings = OPENINGS_MAX - 1;
    return new Error("a stream is tried again");
  }

  async #pollOnce(wait_ms: number): Promise<void> {
    const { reader, store, sync, closed } = this.options;
    const cursors = store.positions().chats;
    if (chunks(cursors).length > 1) {
      // A sync that names only a part answers at once, with everything else.
      await this.#walkList();
      await sleep(PAUSE_MS, closed);
    } else {
      const synced = await sync({ cursors, wait_ms, count: 50 });
      if (closed.isClosed) return;
      for (const delta of synced.chats) reader.delta(delta);
      if (synced.more !== true) reader.sawAll();
    }
    // The next one would say the same again.
    await Promise.race([reader.idle(), sleep(PAUSE_MS, closed)]);
  }
}

/** Positions in calls of a size that the server takes; at least one call. */
function chunks(positions: Position[]): Position[][] {
  let chunk: Position[] = [];
  const all = [chunk];
  let bytes = 0;
  for (const position of positions) {
    // An id of one UTF-16 unit has at most three bytes of UTF-8.
    const size = 100 + position.target.length * 3;
    if (bytes + size > POSITIONS_BYTES_MAX) {
      chunk = [];
      all.push(chunk);
      bytes = 0;
    }
    chunk.push(position);
    bytes += size;
  }
  return all;
}
