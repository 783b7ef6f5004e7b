/**
 * The end of something: said once, heard by everybody who waits.
 *
 * An `AbortSignal` without its limit of ten listeners, beyond which Node warns of a leak.
 */
export class Closing {
  #isClosed = false;
  readonly #listeners = new Set<() => void>();

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Says it. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const listener of listeners) listener();
  }

  /** Calls `listener` when it is said, at once if it was; what comes back stops that. */
  onClose(listener: () => void): () => void {
    if (this.#isClosed) listener();
    else this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
