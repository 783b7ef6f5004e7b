/** Calls over HTTP: one POST each, JSON both ways. What is repeated, and when, is not decided here. */

import type { Closing } from "./closing.js";
import { ConnectionError, errorOf } from "./error.js";

export type Fetch = typeof globalThis.fetch;

/** `send` to `/im.chat/send`, `group.create` to `/im.group/create`, `relation.block` to `/im.relation/block`. */
export function pathOf(method: string): string {
  const dot = method.indexOf(".");
  return dot < 0 ? `/im.chat/${method}` : `/im.${method.slice(0, dot)}/${method.slice(dot + 1)}`;
}

export class Http {
  constructor(
    private readonly url: string,
    private readonly fetch: Fetch,
  ) {}

  /** Calls a verb. Throws a `ChinwagError` for a no, and a `ConnectionError` when no answer comes. */
  async call(
    method: string,
    params: unknown,
    token: string,
    timeout_ms: number,
    closed: Closing,
  ): Promise<unknown> {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), timeout_ms);
    const off = closed.onClose(() => abort.abort());
    try {
      return await this.#exchange(method, params, token, abort.signal);
    } finally {
      clearTimeout(timer);
      off();
    }
  }

  async #exchange(method: string, params: unknown, token: string, signal: AbortSignal): Promise<unknown> {
    // Called as a plain function: a browser's `fetch` minds what `this` is.
    const { fetch } = this;
    let status: number;
    let body: unknown;
    try {
      const response = await fetch(this.url + pathOf(method), {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
        body: JSON.stringify(params),
        credentials: "omit",
        signal,
      });
      status = response.status;
      body = await response.json();
    } catch (cause) {
      const why = signal.aborted ? "no answer in time" : "no answer";
      throw new ConnectionError(`${method}: ${why}`, { cause });
    }
    if (status === 200) return body;
    // What is no error of the server's is one of something between.
    throw errorOf(body) ?? new ConnectionError(`${method}: HTTP ${status} without an error of the server's`);
  }
}
