/** The real server, started, killed and started again on the same port and directory. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";

/** The binary that is tested: built by `cargo build`, or named by the environment. */
const BINARY = process.env["CHINWAG_BIN"] ?? resolve("../../target/debug/chinwag");

export class Server {
  #process: ChildProcess | undefined;
  #address = "127.0.0.1:0";
  #ops = "127.0.0.1:0";
  readonly #data = mkdtempSync(join(tmpdir(), "chinwag-client-"));

  private constructor(private readonly flags: string[]) {}

  static async start(t: TestContext, flags: string[] = []): Promise<Server> {
    const server = new Server(flags);
    t.after(async () => {
      await server.kill();
      rmSync(server.#data, { recursive: true });
    });
    await server.start();
    return server;
  }

  get url(): string {
    return `http://${this.#address}`;
  }

  /** The operations address. */
  get ops(): string {
    return `http://${this.#ops}`;
  }

  /** A token for a user, of so many seconds. */
  token(user: string, ttl_s = 3600, flags: string[] = []): string {
    const args = ["token", "--user", user, "--data", this.#data, "--ttl", `${ttl_s}s`, ...flags];
    return execFileSync(BINARY, args, { encoding: "utf8" }).trim();
  }

  /** Starts, at the second time on the same ports; resolves when it is ready. */
  async start(): Promise<void> {
    const args = ["serve", "--listen", this.#address, "--ops", this.#ops, "--data", this.#data, ...this.flags];
    const child = spawn(BINARY, args, { stdio: ["ignore", "pipe", "ignore"] });
    this.#process = child;
    const ended = once(child, "exit").then(() => {
      throw new Error("the server ended without a ready line");
    });
    const [line] = (await Promise.race([once(createInterface(child.stdout!), "line"), ended])) as [string];
    ended.catch(() => undefined);
    const [, address, ops] = / http=(\S+) ops=(\S+) /.exec(line) ?? [];
    if (address === undefined || ops === undefined) throw new Error(`not the ready line: ${line}`);
    [this.#address, this.#ops] = [address, ops];
  }

  /** `kill -9`. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** Drains. */
  async stop(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, "exit");
    child.kill(signal);
    await exit;
  }
}
