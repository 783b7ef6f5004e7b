/**
 * Calls, over the stream when it is there and over HTTP otherwise, repeated when that helps.
 *
 * A call that may be repeated is, until its time is over: after an answer that never came, and after
 * a server that was overloaded, restarting or asked to be left alone for a moment.
 */

import { Backoff, type BackoffOptions, sleep } from "./backoff.js";
import type { Closing } from "./closing.js";
import {
  ChinwagError,
  ClosedError,
  Code,
  ConnectionError,
  isWorthRepeating,
  type Repeatable,
  retryAfter,
} from "./error.js";
import type { Http } from "./http.js";
import type { Socket } from "./socket.js";
import type { Tokens } from "./token.js";

/** Calls that wait for an answer or for their next try: an app that makes more does not look. */
export const CALLS_WAITING_MAX = 1_000;

export interface CallerOptions {
  http: Http;
  tokens: Tokens;
  /** The stream, if calls can be made over it. */
  socket(): Socket | undefined;
  /** For one try. */
  timeout_ms: number;
  backoff: BackoffOptions;
  closed: Closing;
}

/** How a call is made. */
export interface Manner {
  repeatable: Repeatable;
  /** How long the server holds the call by intent. */
  wait_ms: number;
  /** When it is not tried again any more, in milliseconds of Unix time. */
  until: number;
}

export class Caller {
  #waiting = 0;

  constructor(private readonly options: CallerOptions) {}

  /** Calls a verb; at least once. */
  async call(method: string, params: unknown, manner: Manner): Promise<unknown> {
    if (this.#waiting >= CALLS_WAITING_MAX) {
      throw new ChinwagError(Code.too_fast, `${method}: ${CALLS_WAITING_MAX} calls are waiting`);
    }
    this.#waiting += 1;
    try {
      return await this.#repeat(method, params, manner);
    } finally {
      this.#waiting -= 1;
    }
  }

  async #repeat(method: string, params: unknown, manner: Manner): Promise<unknown> {
    const { repeatable, wait_ms, until } = manner;
    const { closed } = this.options;
    const backoff = new Backoff(this.options.backoff);
    let hasRenewed = false;
    for (;;) {
      if (closed.isClosed) throw new ClosedError("the client is closed");
      const used = { token: undefined as string | undefined };
      try {
        return await this.#try(method, params, wait_ms, used);
      } catch (error) {
        if (closed.isClosed) throw new ClosedError("the client is closed", { cause: error });
        if (isUnauthenticated(error) && used.token !== undefined) await this.options.tokens.refuse(used.token);
        if (isUnauthenticated(error) && this.options.tokens.isRenewable && !hasRenewed) {
          hasRenewed = true;
          continue;
        }
        const wait = backoff.next(retryAfter(error));
        if (!isWorthRepeating(error, repeatable) || Date.now() + wait >= until) throw error;
        await sleep(wait, closed);
      }
    }
  }

  /** One try. */
  async #try(
    method: string,
    params: unknown,
    wait_ms: number,
    used: { token: string | undefined },
  ): Promise<unknown> {
    const timeout_ms = this.options.timeout_ms + wait_ms;
    const socket = this.options.socket();
    if (socket !== undefined) return socket.call(method, params, timeout_ms);
    const token = await this.#token();
    used.token = token;
    return this.options.http.call(method, params, token, timeout_ms, this.options.closed);
  }

  async #token(): Promise<string> {
    try {
      return await this.options.tokens.get();
    } catch (cause) {
      throw new ConnectionError("there is no token", { cause });
    }
  }
}

export function isUnauthenticated(error: unknown): boolean {
  return error instanceof ChinwagError && error.code === Code.unauthenticated;
}
