/** Debian's Chromium without a window, driven over its own protocol. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";

const BINARY = process.env["CHROMIUM_BIN"] ?? "/usr/bin/chromium";
/** How long it has to put its things away. */
const END_MS = 5_000;
/** It looks for nothing outside of this machine. */
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-background-timer-throttling",
  "--disable-component-update",
  "--disable-sync",
  "--remote-debugging-port=0",
];

interface Reply {
  id?: number;
  result?: Record<string, unknown>;
  error?: { message: string };
}

/** A browser; ends with the test. */
export class Chromium {
  #nextId = 1;
  readonly #calls = new Map<number, (reply: Reply) => void>();

  private constructor(
    private readonly socket: WebSocket,
    private readonly process: ChildProcess,
  ) {
    socket.onmessage = ({ data }) => {
      const reply = JSON.parse(String(data)) as Reply;
      if (reply.id !== undefined) this.#calls.get(reply.id)?.(reply);
    };
  }

  static async start(t: TestContext): Promise<Chromium> {
    const profile = mkdtempSync(join(tmpdir(), "chinwag-browser-"));
    const child = spawn(BINARY, [...FLAGS, `--user-data-dir=${profile}`], { stdio: ["ignore", "ignore", "pipe"] });
    const exit = once(child, "exit");
    t.after(async () => {
      child.kill("SIGTERM");
      const late = setTimeout(() => child.kill("SIGKILL"), END_MS);
      await exit;
      clearTimeout(late);
      // Its children may still be writing for a moment.
      await rm(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
    });
    const socket = new WebSocket(await endpoint(child));
    await new Promise<void>((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onerror = () => reject(new Error("the browser does not answer"));
    });
    return new Chromium(socket, child);
  }

  /** A page in which `isReady` holds. */
  async open(url: string, isReady: string): Promise<Page> {
    const { targetId } = await this.#call("Target.createTarget", { url });
    const attached = await this.#call("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page((method, params) => this.#call(method, params, attached["sessionId"] as string));
    // The blank page before it goes away in the middle of being asked.
    while (!(await page.evaluate(isReady).catch(() => false))) await new Promise((look) => setTimeout(look, 10));
    return page;
  }

  async #call(method: string, params: object, sessionId?: string): Promise<Record<string, unknown>> {
    if (this.process.exitCode !== null) throw new Error("the browser has ended");
    const id = this.#nextId++;
    const reply = await new Promise<Reply>((resolve) => {
      this.#calls.set(id, resolve);
      this.socket.send(JSON.stringify({ id, method, params, sessionId }));
    });
    this.#calls.delete(id);
    if (reply.error !== undefined) throw new Error(`${method}: ${reply.error.message}`);
    return reply.result ?? {};
  }
}

/** One tab. */
export class Page {
  constructor(private readonly call: (method: string, params: object) => Promise<Record<string, unknown>>) {}

  /** The value of an expression in the page, awaited if it is a promise. */
  async evaluate(expression: string): Promise<unknown> {
    const params = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = (await this.call("Runtime.evaluate", params)) as {
      result: { value?: unknown };
      exceptionDetails?: { text: string; exception?: { description?: string } };
    };
    if (exceptionDetails !== undefined) {
      throw new Error(`in the page: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    }
    return result.value;
  }
}

/** The address that it prints. */
async function endpoint(child: ChildProcess): Promise<string> {
  for await (const line of createInterface(child.stderr!)) {
    const address = /DevTools listening on (ws:\S+)/.exec(line)?.[1];
    if (address !== undefined) {
      // What it says further must not fill the pipe.
      child.stderr!.resume();
      return address;
    }
  }
  throw new Error(`${BINARY} ended without an address: is Debian's chromium installed?`);
}
