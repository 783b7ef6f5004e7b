/** The client: what an app calls, and what it is told. */

import type {
  BlockList,
  ChatList,
  Chat,
  Duty,
  GroupInfo,
  GroupList,
  GroupMembers,
  Hello,
  ListRequest,
  Message,
  MessageRequest,
  Page,
  PullRequest,
  Recall,
  Receipt,
  SendRequest,
  SignalRequest,
  Synced,
  SyncRequest,
} from "./api.js";
import type { BackoffOptions } from "./backoff.js";
import { Caller } from "./caller.js";
import { Closing } from "./closing.js";
import { Connection, type PassedOn, type State, type StateChange } from "./connection.js";
import { ChinwagError, ClosedError, Code, type Repeatable } from "./error.js";
import { type Fetch, Http } from "./http.js";
import { type History, Reader } from "./reader.js";
import { keyOf, type Positions, Store } from "./store.js";
import { Tokens, type TokenSource } from "./token.js";

/** Sends that wait for their turn: an app that makes more does not look. */
const SENDS_WAITING_MAX = 1_000;

export interface ClientOptions {
  /** Of the server, like `https://chat.example.com`. */
  url: string;
  /** A JWT, or what fetches one; that is called again when the last one is refused. */
  token: TokenSource;
  /** What {@link Client.positions} said, to go on from there. */
  positions?: Positions;
  /**
   * Where conversations begin that are there when a client without positions first connects: with
   * their `newest` message (the default), or with `all` that is kept. Later ones come whole.
   */
  history?: History;
  /** `poll`: never open a socket. Otherwise sync does only where sockets fail. */
  transport?: "auto" | "poll";
  /** Instead of the global one; Node has one from version 22 on. */
  WebSocket?: typeof globalThis.WebSocket;
  /** Instead of the global one. */
  fetch?: Fetch;
  /** How long one try of a call may take: 15 seconds. */
  timeout_ms?: number;
  /** How long a call that may be repeated is: 60 seconds. */
  retry_ms?: number;
  /** Between tries of a call: 250 ms, up to 5 s. */
  call_backoff?: BackoffOptions;
  /** Between connections: 500 ms, up to 30 s. */
  connect_backoff?: BackoffOptions;
  /** After so long without a word the server is asked for one: 30 seconds. */
  silence_ms?: number;
  /** How long it has for that: 10 seconds. */
  pong_ms?: number;
  /** How long the server holds a sync, where that is used: 25 seconds; at most 30. */
  poll_ms?: number;
}

/** What the app is told. */
export interface Events extends PassedOn {
  /** Each message once, in order per conversation, without a hole; one's own too. */
  message: Message;
  /** Each recall likewise. */
  recall: Recall;
  /**
   * A restore took history back, of this conversation or of all: what the app keeps of it is not what
   * the server has. Reading begins anew.
   */
  reset: { chat?: Chat };
  /** A conversation cannot be read; others go on. */
  problem: { chat: Chat; error: unknown };
}

export type Handler<K extends keyof Events> = (event: Events[K]) => void;

export class Client {
  readonly #store: Store;
  readonly #reader: Reader;
  readonly #caller: Caller;
  readonly #connection: Connection;
  readonly #closed = new Closing();
  readonly #handlers: { [K in keyof Events]?: Set<Handler<K>> } = {};
  readonly #sends = new Map<string, Promise<unknown>>();
  readonly #retry_ms: number;
  #sendsWaiting = 0;
  #state: State = "closed";
  #user: string | undefined;
  #hasBegun = false;

  constructor(options: ClientOptions) {
    const url = options.url.replace(/\/+$/, "");
    if (!/^https?:\/\//.test(url)) throw new TypeError("url must begin with http:// or https://");
    const closed = this.#closed;
    const tokens = new Tokens(options.token);
    const fetch = options.fetch ?? ((...call: Parameters<Fetch>) => globalThis.fetch(...call));
    this.#retry_ms = options.retry_ms ?? 60_000;
    this.#store = new Store(options.positions);
    this.#caller = new Caller({
      http: new Http(url, fetch),
      tokens,
      socket: () => this.#connection.socket,
      timeout_ms: options.timeout_ms ?? 15_000,
      backoff: options.call_backoff ?? { base_ms: 250, cap_ms: 5_000 },
      closed,
    });
    this.#reader = new Reader({
      store: this.#store,
      history: options.history ?? "newest",
      pull: (request) => this.pull(request),
      onMessage: (message) => this.#emit("message", message),
      onRecall: (recall) => this.#emit("recall", recall),
      onReset: (chat) => this.#emit("reset", chat === undefined ? {} : { chat }),
      onProblem: (chat, error) => this.#emit("problem", { chat, error }),
    });
    this.#connection = new Connection({
      url,
      tokens,
      reader: this.#reader,
      store: this.#store,
      WebSocket: options.transport === "poll" ? undefined : (options.WebSocket ?? globalThis.WebSocket),
      backoff: options.connect_backoff ?? { base_ms: 500, cap_ms: 30_000 },
      silence_ms: options.silence_ms ?? 30_000,
      pong_ms: options.pong_ms ?? 10_000,
      poll_ms: options.poll_ms ?? 25_000,
      closed,
      probe: () => this.#call("list", { count: 1 }, "never"),
      sync: (request) => this.#call("sync", request, "never", request.wait_ms),
      list: (cursor, count) => this.list({ cursor, count }),
      emit: (name, value) => this.#pass(name, value),
    });
  }

  /** Where the connection is; `closed` before {@link connect}. */
  get state(): State {
    return this.#state;
  }

  /** Who the token is for; known once the server has said hello. */
  get user(): string | undefined {
    return this.#user;
  }

  /** Has `handler` called with each event of a kind; what comes back stops that. */
  on<K extends keyof Events>(name: K, handler: Handler<K>): () => void {
    const handlers = (this.#handlers[name] ??= new Set() as never) as Set<Handler<K>>;
    handlers.add(handler);
    return () => handlers.delete(handler);
  }

  /** Begins live delivery, which goes on until {@link close}. Add handlers first. */
  connect(): void {
    if (this.#hasBegun || this.#closed.isClosed) return;
    this.#hasBegun = true;
    // A page that is back on a network does not wait for the next try.
    const wake = (): void => this.#connection.wake();
    globalThis.addEventListener?.("online", wake);
    void this.#connection.run().then((error) => {
      globalThis.removeEventListener?.("online", wake);
      this.#finish(error);
    });
  }

  /** Ends everything: calls under way fail, no event comes any more. */
  close(): void {
    this.#finish(undefined);
  }

  /** How far everything was delivered: to be kept, and given to the next client. */
  positions(): Positions {
    return this.#store.positions();
  }

  /**
   * Sends a message. It is tried again until the server has it or says no, for as long as `retry_ms`:
   * never twice, because it has a name. Messages to one conversation arrive in the order of the calls.
   */
  send(request: SendRequest): Promise<Receipt> {
    if (this.#closed.isClosed) return Promise.reject(new ClosedError("the client is closed"));
    if (this.#sendsWaiting >= SENDS_WAITING_MAX) {
      return Promise.reject(new ChinwagError(Code.too_fast, `${SENDS_WAITING_MAX} messages are waiting`));
    }
    const named = { ...request, client_msg_id: request.client_msg_id ?? newId() };
    const key = keyOf(request);
    const before = this.#sends.get(key) ?? Promise.resolve();
    this.#sendsWaiting += 1;
    // Those that wait behind one that fails do not each begin their time then.
    const until = Date.now() + this.#retry_ms;
    const sent = before.then(() => this.#call<Receipt>("send", named, "always", 0, until));
    const done = sent
      .catch(() => undefined)
      .then(() => {
        this.#sendsWaiting -= 1;
        if (this.#sends.get(key) === done) this.#sends.delete(key);
      });
    this.#sends.set(key, done);
    return sent;
  }

  /** Takes a message back. */
  recall(request: MessageRequest): Promise<{ recall_index: number }> {
    return this.#call("recall", request);
  }

  /** Moves one's read cursor to a message. */
  async ack(request: MessageRequest): Promise<void> {
    await this.#call("ack", request);
  }

  /** A page of a conversation's history. */
  pull(request: PullRequest): Promise<Page> {
    return this.#call("pull", request, "always", request.wait_ms);
  }

  /** A page of one's conversations, newest first. */
  list(request: ListRequest = {}): Promise<ChatList> {
    return this.#call("list", request);
  }

  /** What moved past the positions given. */
  sync(request: SyncRequest): Promise<Synced> {
    return this.#call("sync", request, "always", request.wait_ms);
  }

  /** How far everybody in a conversation has read. */
  async acks({ target, target_type }: Chat): Promise<Record<string, number>> {
    return (await this.#call<{ acks: Record<string, number> }>("acks", { target, target_type })).acks;
  }

  /** Tells those who are connected; once, or not at all. */
  async signal(request: SignalRequest): Promise<void> {
    await this.#call("signal", request, "never");
  }

  /** Which of these people, with whom one shares a conversation, are connected. */
  async online(user_ids: string[]): Promise<Record<string, boolean>> {
    return (await this.#call<{ online: Record<string, boolean> }>("online", { user_ids })).online;
  }

  /** Groups. Only what the server has refused without doing anything is repeated. */
  readonly group = {
    /** Creates a group that the caller owns. */
    create: (request: { group_id?: string; name: string; members?: string[] }) =>
      this.#call<{ group_id: string }>("group.create", request, "refused"),
    info: (group_id: string) => this.#call<GroupInfo>("group.info", { group_id }),
    members: (request: { group_id: string; cursor?: string; count?: number }) =>
      this.#call<GroupMembers>("group.members", request),
    add: (group_id: string, user_ids: string[]) => this.#change("group.add", { group_id, user_ids }),
    kick: (group_id: string, user_ids: string[]) => this.#change("group.kick", { group_id, user_ids }),
    leave: (group_id: string) => this.#change("group.leave", { group_id }),
    /** Gives a member a duty; who gives somebody else duty 2 becomes an admin. */
    setDuty: (group_id: string, user_id: string, duty: Duty) =>
      this.#change("group.set_duty", { group_id, user_id, duty }),
    rename: (group_id: string, name: string) => this.#change("group.rename", { group_id, name }),
    /** Until when in Unix seconds; 0, or past: they may send again. */
    mute: (group_id: string, user_id: string, until: number) =>
      this.#change("group.mute", { group_id, user_id, until }),
    /** Ends the group, for everybody and for ever. */
    dismiss: (group_id: string) => this.#change("group.dismiss", { group_id }),
    /** A page of one's groups. */
    list: (request: { cursor?: string; count?: number } = {}) => this.#call<GroupList>("group.list", request),
  };

  /** Blocks: who is blocked cannot send to the caller, nor see them online. */
  readonly relation = {
    block: async (user_id: string): Promise<void> => void (await this.#call("relation.block", { user_id })),
    unblock: async (user_id: string): Promise<void> => void (await this.#call("relation.unblock", { user_id })),
    /** A page of those whom the caller blocks. */
    blocks: (request: { cursor?: string; count?: number } = {}) =>
      this.#call<BlockList>("relation.blocks", request),
  };

  async #change(method: string, params: object): Promise<void> {
    await this.#call(method, params, "refused");
  }

  async #call<T>(
    method: string,
    params: object,
    repeatable: Repeatable = "always",
    wait_ms = 0,
    until = Date.now() + this.#retry_ms,
  ): Promise<T> {
    return (await this.#caller.call(method, params, { repeatable, wait_ms, until })) as T;
  }

  #finish(error: Error | undefined): void {
    if (this.#closed.isClosed) return;
    this.#closed.close();
    this.#reader.close();
    this.#state = "closed";
    const change: StateChange = error === undefined ? { state: "closed" } : { state: "closed", error };
    this.#tell("state", change);
  }

  #pass<K extends keyof PassedOn>(name: K, value: PassedOn[K]): void {
    if (name === "state") this.#state = (value as StateChange).state;
    if (name === "hello") this.#user = (value as Hello).user;
    this.#emit(name, value as Events[K]);
  }

  /** Nothing comes after the end. */
  #emit<K extends keyof Events>(name: K, event: Events[K]): void {
    if (!this.#closed.isClosed) this.#tell(name, event);
  }

  #tell<K extends keyof Events>(name: K, event: Events[K]): void {
    for (const handler of this.#handlers[name] ?? []) {
      try {
        handler(event);
      } catch (error) {
        // The app's mistake is the app's to hear of, but it must not stop the others.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/** A random UUID (RFC 9562, version 4); pages without TLS have no `randomUUID`. */
function newId(): string {
  if (typeof globalThis.crypto.randomUUID === "function") return globalThis.crypto.randomUUID();
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
