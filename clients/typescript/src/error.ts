/** What can go wrong with a call, and whether calling again can help. */

/** The codes of the API's errors. */
export const Code = {
  /** The request breaks a rule; the text names the field and the limit. */
  invalid: 10001,
  /** Something broke in the server. */
  broken: 10003,
  /** The token is missing, expired or not accepted. */
  unauthenticated: 10004,
  /** Not a member, blocked, or not allowed. */
  forbidden: 10008,
  /** Too many calls. */
  too_fast: 10009,
  /** Overloaded, or going down: nothing was stored unless the text says that it is unknown. */
  unavailable: 10011,
  no_such_message: 20001,
  not_your_message: 20002,
  /** `client_msg_id` was used for another message. */
  client_id_reused: 20003,
  recall_window_passed: 20004,
  no_such_group: 22002,
  group_exists: 22003,
} as const;

/** The server said no. */
export class ChinwagError extends Error {
  override readonly name = "ChinwagError";

  constructor(
    /** One of {@link Code}, or one of a later server. */
    readonly code: number,
    message: string,
    /** When the server wants to be asked again. */
    readonly retry_after_ms?: number,
  ) {
    super(message);
  }
}

/** No answer came: whether the call was carried out is unknown. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
}

/** The client was closed, or its token is refused and there is no other. */
export class ClosedError extends Error {
  override readonly name = "ClosedError";
}

/**
 * What may be repeated: `always` a call that does the same twice as once, `refused` one of which the
 * server has to have said that it did nothing, `never` one that is stale by then.
 */
export type Repeatable = "always" | "refused" | "never";

/** Whether calling again may help, and hurts nobody. */
export function isWorthRepeating(error: unknown, repeatable: Repeatable): boolean {
  if (repeatable === "never") return false;
  if (error instanceof ConnectionError) return repeatable === "always";
  if (!(error instanceof ChinwagError)) return false;
  if (error.code === Code.too_fast) return true;
  return (error.code === Code.unavailable || error.code === Code.broken) && repeatable === "always";
}

/** How long the server asked to be left alone. */
export function retryAfter(error: unknown): number {
  return error instanceof ChinwagError ? (error.retry_after_ms ?? 0) : 0;
}

/** The error of a reply's `{"code","msg"}`, if it is one. */
export function errorOf(body: unknown): ChinwagError | undefined {
  if (typeof body !== "object" || body === null) return undefined;
  const { code, msg, retry_after_ms } = body as Record<string, unknown>;
  if (typeof code !== "number") return undefined;
  const after = typeof retry_after_ms === "number" && retry_after_ms > 0 ? retry_after_ms : undefined;
  return new ChinwagError(code, typeof msg === "string" ? msg : `error ${code}`, after);
}
