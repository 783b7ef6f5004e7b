/**
 * Calls with the admin token.
 *
 * The token is in this module's memory and, if its owner wants that, in the tab's session storage: never in a URL, a cookie or
 * what other tabs can read.
 */

const KEY = "chinwag.admin-token";

let token = kept();

export function hasToken() {
  return token !== null;
}

/** Uses a token from now on; with `keep`, also after the page is loaded again. */
export function useToken(given, keep) {
  token = given;
  try {
    keep ? sessionStorage.setItem(KEY, given) : sessionStorage.removeItem(KEY);
  } catch {
    // A browser that stores nothing: it is kept until the page is left.
  }
}

export function forgetToken() {
  useToken(null, false);
}

function kept() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** Whose token it says it is, and until when (Unix seconds): for people, proven by nobody here. */
export function claims() {
  try {
    const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (one) => one.charCodeAt(0));
    const { sub, exp } = JSON.parse(new TextDecoder().decode(bytes));
    return { sub: String(sub), exp: Number(exp) };
  } catch {
    return null;
  }
}

/** A refusal in the server's words. */
export class Refused extends Error {
  constructor(status, wasCurrent, { code, msg } = {}) {
    super(msg === undefined ? `status ${status}` : `${msg} (${code})`);
    /** Whether another token is needed; not when there is another one already. */
    this.isOfToken = wasCurrent && (status === 401 || status === 403);
  }
}

/** Makes an admin call and gives its reply. Orders may take minutes, so only `signal` ends the wait. */
export async function call(verb, body, signal) {
  const used = token;
  const headers = { Authorization: `Bearer ${used}`, "Content-Type": "application/json" };
  const reply = await fetch(`im.admin/${verb}`, { method: "POST", headers, body: JSON.stringify(body), signal, ...PLAIN });
  const said = await reply.json().catch(() => undefined);
  if (!reply.ok) throw new Refused(reply.status, used === token, said);
  return said;
}

/** A public page of this address, as its text, whatever the status. */
export async function read(path, signal) {
  return (await fetch(path, { signal, ...PLAIN })).text();
}

/** Nothing is sent along, kept or followed. */
const PLAIN = { credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer" };
