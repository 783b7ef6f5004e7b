import assert from "node:assert/strict";
import { test } from "node:test";

import { Closing } from "../src/closing.js";
import { Backoff, sleep } from "../src/backoff.js";

test("waits are random below a bound that doubles up to a cap", () => {
  const most = new Backoff({ base_ms: 100, cap_ms: 1000, random: () => 0.999999 });
  const waits = Array.from({ length: 6 }, () => Math.round(most.next()));
  assert.deepEqual(waits, [100, 200, 400, 800, 1000, 1000]);
  const least = new Backoff({ base_ms: 100, cap_ms: 1000, random: () => 0 });
  assert.deepEqual([least.next(), least.next()], [0, 0]);
  most.ease();
  assert.equal(Math.round(most.next()), 400);
  most.reset();
  assert.equal(Math.round(most.next()), 100);
});

test("a server that asks to be left alone is, within reason", () => {
  const backoff = new Backoff({ base_ms: 100, cap_ms: 1000, random: () => 0.5 });
  assert.equal(backoff.next(2000), 2050);
  assert.equal(backoff.next(1e12), 60_100);
});

test("a thousand failures are no overflow", () => {
  const backoff = new Backoff({ base_ms: 100, cap_ms: 1000, random: () => 0.5 });
  for (let tries = 0; tries < 1000; tries += 1) backoff.next();
  assert.equal(backoff.next(), 500);
});

test("a sleep ends when it is told to", async () => {
  const end = new Closing();
  const slept = sleep(1e6, end);
  end.close();
  await slept;
  await sleep(1e6, end);
});
