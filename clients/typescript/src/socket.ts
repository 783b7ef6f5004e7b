/**
 * One WebSocket from its opening to its end: calls with their answers, events as they come.
 *
 * It notices a line that has gone dead. It opens once and ends once; what comes after that is the
 * business of whoever opened it.
 */

import type { Hello, StreamEvent } from "./api.js";
import { ChinwagError, Code, ConnectionError, errorOf } from "./error.js";

/** Calls without an answer at a time: what the server takes from one socket at once. */
export const CALLS_MAX = 256;
/** From asking for a connection to the server's hello. */
const OPEN_TIMEOUT_MS = 15_000;
/** How long a close has to follow an error. */
const ERROR_TO_CLOSE_MS = 50;
/** A code of our own: the application's range begins at 4000. */
const DEAD_LINE = 4000;
const PROTOCOL = "chinwag.v1";

/** How a stream ended. */
export interface Ending {
  /** The close code; 1006 if there was none. */
  code: number;
  why: string;
  /** Whether a hello had come. */
  wasOpen: boolean;
}

export interface SocketOptions {
  WebSocket: typeof globalThis.WebSocket;
  /** Of the server: `http` or `https`. */
  url: string;
  token: string;
  /** After so long without a word from the server it is asked for one. */
  silence_ms: number;
  /** How long it has for that. */
  pong_ms: number;
  onHello(hello: Hello, socket: Socket): void;
  onEvent(event: StreamEvent): void;
  onEnd(ending: Ending): void;
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: Error): void;
  timer: ReturnType<typeof setTimeout>;
}

export class Socket {
  readonly #socket: WebSocket;
  readonly #calls = new Map<number, Pending>();
  #nextId = 1;
  #isOpen = false;
  #hasEnded = false;
  #said: { code: number; msg: string } | undefined;
  #heardAt = Date.now();
  #alarm: ReturnType<typeof setTimeout>;

  constructor(private readonly options: SocketOptions) {
    const { WebSocket, token } = options;
    this.#socket = new WebSocket(streamUrl(options.url), [PROTOCOL, `bearer.${token}`]);
    this.#socket.onmessage = ({ data }) => this.#take(data);
    this.#socket.onclose = ({ code, reason }) => this.#end(code, reason);
    // A close follows, which may say more; but not from Node 20 for a connection that is refused.
    this.#socket.onerror = () => setTimeout(() => this.#end(1006, ""), ERROR_TO_CLOSE_MS);
    this.#alarm = setTimeout(() => this.#giveUp("no hello in time"), OPEN_TIMEOUT_MS);
  }

  /** Whether calls can be made. */
  get isOpen(): boolean {
    return this.#isOpen && !this.#hasEnded;
  }

  /** Calls a verb. Throws a `ChinwagError` for a no, and a `ConnectionError` when no answer comes. */
  call(method: string, params: unknown, timeout_ms: number): Promise<unknown> {
    if (!this.isOpen) return Promise.reject(new ConnectionError(`${method}: not connected`));
    if (this.#calls.size >= CALLS_MAX) {
      return Promise.reject(new ChinwagError(Code.too_fast, `${method}: ${CALLS_MAX} calls are under way`));
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const late = (): void => {
        this.#calls.delete(id);
        reject(new ConnectionError(`${method}: no answer in time`));
      };
      this.#calls.set(id, { resolve, reject, timer: setTimeout(late, timeout_ms) });
      this.#socket.send(JSON.stringify({ id, method, params }));
    });
  }

  /** Ends the stream. */
  close(code = 1000, why = "closed by the client"): void {
    this.#socket.close(code, why);
    // The server's part of the farewell is not waited for: on a dead line it never comes.
    this.#end(code, why);
  }

  #take(data: unknown): void {
    if (this.#hasEnded) return;
    this.#heardAt = Date.now();
    let frame: unknown;
    try {
      frame = JSON.parse(String(data));
    } catch {
      return this.#giveUp("the server sent what is no JSON");
    }
    if (typeof frame !== "object" || frame === null) return;
    if ("type" in frame) this.#event(frame as StreamEvent);
    else this.#answer(frame as { id?: unknown; result?: unknown; error?: unknown });
  }

  #event(event: StreamEvent): void {
    if (event.type === "close") this.#said = event;
    else if (event.type !== "hello") this.options.onEvent(event);
    else if (!this.#isOpen) {
      this.#isOpen = true;
      clearTimeout(this.#alarm);
      this.#listen();
      this.options.onHello(event, this);
    }
  }

  #answer({ id, result, error }: { id?: unknown; result?: unknown; error?: unknown }): void {
    const pending = typeof id === "number" ? this.#calls.get(id) : undefined;
    if (pending === undefined) return;
    this.#calls.delete(id as number);
    clearTimeout(pending.timer);
    if (error === undefined) pending.resolve(result);
    else pending.reject(errorOf(error) ?? new ConnectionError("an error without a code"));
  }

  /** Looks, when the server may have been silent for too long, whether it is there. */
  #listen(): void {
    const silent_ms = Date.now() - this.#heardAt;
    const { silence_ms, pong_ms } = this.options;
    if (silent_ms < silence_ms) {
      this.#alarm = setTimeout(() => this.#listen(), silence_ms - silent_ms);
      return;
    }
    // To resume nothing does nothing. A browser's socket cannot ping.
    const ask = this.call("resume", { cursors: [] }, pong_ms);
    ask.then(
      () => this.#listen(),
      (error: unknown) => {
        const isHeard = error instanceof ChinwagError || Date.now() - this.#heardAt < pong_ms;
        if (!isHeard) this.#giveUp("the server is silent");
        else if (!this.#hasEnded) this.#alarm = setTimeout(() => this.#listen(), silence_ms);
      },
    );
  }

  #giveUp(why: string): void {
    this.close(DEAD_LINE, why);
  }

  #end(code: number, reason: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearTimeout(this.#alarm);
    for (const { reject, timer } of this.#calls.values()) {
      clearTimeout(timer);
      reject(new ConnectionError("the connection was lost"));
    }
    this.#calls.clear();
    // What the last event said is there even where a proxy took the close frame.
    const said = this.#said;
    const ending = code === 1006 && said !== undefined ? { code: said.code, why: said.msg } : { code, why: reason };
    this.options.onEnd({ ...ending, wasOpen: this.#isOpen });
  }
}

/** `ws` for `http`, `wss` for `https`. A resume will come. */
function streamUrl(url: string): string {
  return `${url.replace(/^http/, "ws")}/im.chat/stream?resume=1`;
}
