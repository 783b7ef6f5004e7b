/** The token: one text for good, or asked for whenever the last one is refused. */

/** A JWT, or what fetches one. It is called again when the server refuses the last one. */
export type TokenSource = string | (() => string | Promise<string>);

export class Tokens {
  #current: Promise<string> | undefined;

  constructor(private readonly source: TokenSource) {}

  /** Whether another token may come after one that is refused. */
  get isRenewable(): boolean {
    return typeof this.source === "function";
  }

  /** The token; those who ask at a time wait for one fetch. */
  get(): Promise<string> {
    if (typeof this.source === "string") return Promise.resolve(this.source);
    const fetch = this.source;
    if (this.#current === undefined) {
      const current = (async () => fetch())();
      this.#current = current;
      // What failed is asked for again by the next.
      current.catch(() => this.#forget(current));
    }
    return this.#current;
  }

  /** The server refused this one. */
  async refuse(token: string): Promise<void> {
    const current = this.#current;
    if (current !== undefined && (await current.catch(() => undefined)) === token) this.#forget(current);
  }

  #forget(token: Promise<string>): void {
    if (this.#current === token) this.#current = undefined;
  }
}
