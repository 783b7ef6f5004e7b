/** The text of /metrics as numbers, and what lies between two looks at it. */

/** One look: every series with its labels, by its name. */
export class Metrics {
  #series = new Map();

  constructor(text) {
    for (const line of text.split("\n")) {
      const found = /^([a-z_:][\w:]*)(?:\{(.*)\})? (\S+)/i.exec(line);
      if (found === null) continue;
      const [, name, labels = "", value] = found;
      const one = { labels: Object.fromEntries(pairs(labels)), value: Number(value) };
      this.#series.has(name) ? this.#series.get(name).push(one) : this.#series.set(name, [one]);
    }
  }

  /** The series of a name with these labels, among others. */
  all(name, labels = {}) {
    const wanted = Object.entries(labels);
    return (this.#series.get(name) ?? []).filter((one) => wanted.every(([key, value]) => one.labels[key] === value));
  }

  /** Their sum; null if there are none. */
  sum(name, labels) {
    const all = this.all(name, labels);
    return all.length === 0 ? null : all.reduce((sum, { value }) => sum + value, 0);
  }

  /** The sync mode of the server. */
  syncMode() {
    return this.all("chinwag_sync_mode")[0]?.labels.mode ?? null;
  }

  /** The verbs that were called, with how many answers and errors, those with most first. */
  verbs() {
    const verbs = new Map();
    for (const { labels, value } of this.all("chinwag_requests_total")) {
      const of = verbs.get(labels.verb) ?? { verb: labels.verb, answered: 0, errors: 0 };
      of.answered += value;
      if (labels.code !== "0") of.errors += value;
      verbs.set(labels.verb, of);
    }
    return [...verbs.values()].filter(({ answered }) => answered > 0).sort((a, b) => b.answered - a.answered);
  }

  /** The codes with which requests ended in an error: how many, and of which verbs. */
  errors() {
    const codes = new Map();
    for (const { labels, value } of this.all("chinwag_requests_total")) {
      if (labels.code === "0" || value === 0) continue;
      const of = codes.get(labels.code) ?? { code: labels.code, errors: 0, verbs: [] };
      of.errors += value;
      of.verbs.push(labels.verb);
      codes.set(labels.code, of);
    }
    return [...codes.values()].sort((a, b) => b.errors - a.errors);
  }

  /** A histogram: upper bounds, and how many values lie at or below each. */
  histogram(name, labels) {
    const at = new Map();
    for (const one of this.all(`${name}_bucket`, labels)) {
      const bound = one.labels.le === "+Inf" ? Infinity : Number(one.labels.le);
      at.set(bound, (at.get(bound) ?? 0) + one.value);
    }
    return [...at].sort(([a], [b]) => a - b).map(([bound, below]) => ({ bound, below }));
  }
}

function* pairs(labels) {
  for (const [, key, value] of labels.matchAll(/(\w+)="([^"]*)"/g)) yield [key, value];
}

/**
 * The value below which a share of a histogram lies, of what came since `before` where that is given; null if nothing did.
 * Within a bucket values count as spread evenly; above the last bound there is only that bound.
 */
export function quantile(share, now, before = []) {
  const buckets = now.map(({ bound, below }, index) => ({ bound, below: below - (before[index]?.below ?? 0) }));
  const rank = share * (buckets.at(-1)?.below ?? 0);
  if (!(rank > 0)) return null;
  let [lower, under] = [0, 0];
  for (const { bound, below } of buckets) {
    if (below > under && below >= rank) {
      return bound === Infinity ? lower : lower + ((bound - lower) * (rank - under)) / (below - under);
    }
    [lower, under] = [bound, below];
  }
  return null;
}

/** What a counter counted a second between two looks; null if there is none before, or the server began anew. */
export function rate(now, before, elapsed_s) {
  return now === null || before === null || now < before || !(elapsed_s > 0) ? null : (now - before) / elapsed_s;
}
