/** Client of the Chinwag chat backend. See the README beside this package. */

export type * from "./api.js";
export type { BackoffOptions } from "./backoff.js";
export { Client, type ClientOptions, type Events, type Handler } from "./client.js";
export type { State, StateChange } from "./connection.js";
export { ChinwagError, ClosedError, Code, ConnectionError } from "./error.js";
export type { History } from "./reader.js";
export type { Positions } from "./store.js";
export type { TokenSource } from "./token.js";
