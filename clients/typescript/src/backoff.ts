/**
 * How long to wait before the next try.
 *
 * Exponential with full jitter: a random time between nothing and a bound that doubles. After a
 * restart of the server its clients come back spread out, not in waves (Marc Brooker, "Exponential
 * Backoff And Jitter", AWS Architecture Blog, 2015).
 */

import type { Closing } from "./closing.js";

/** A longer wait that a server asks for is not believed. */
const RETRY_AFTER_MAX_MS = 60_000;

export interface BackoffOptions {
  /** The bound of the first wait. */
  base_ms: number;
  /** The bound of every wait. */
  cap_ms: number;
  /** In [0, 1). */
  random?: () => number;
}

export class Backoff {
  #tries = 0;

  constructor(private readonly options: BackoffOptions) {}

  /** The next wait in milliseconds; never less than what the server asked for. */
  next(retry_after_ms = 0): number {
    const { base_ms, cap_ms, random = Math.random } = this.options;
    const bound = Math.min(cap_ms, base_ms * 2 ** Math.min(this.#tries, 30));
    this.#tries += 1;
    return Math.min(retry_after_ms, RETRY_AFTER_MAX_MS) + random() * bound;
  }

  /** The last try was a good one. */
  reset(): void {
    this.#tries = 0;
  }

  /** The last try went well for a moment: the waits may grow, but not for long. */
  ease(): void {
    this.#tries = Math.min(this.#tries, 2);
  }
}

/** Resolves after a time, or at once when `until` closes. */
export function sleep(ms: number, until: Closing): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      off();
      resolve();
    }, ms);
    const off = until.onClose(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
