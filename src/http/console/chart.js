/** A chart of one or two lines over the last minutes, with what they are now in words. */

const SVG = "http://www.w3.org/2000/svg";
const POINTS = 150;
const [WIDTH, HEIGHT] = [300, 80];

/** An element with a class, a text and children. */
export function element(name, { className, text } = {}, children = []) {
  const made = document.createElement(name);
  if (className !== undefined) made.className = className;
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

export class Chart {
  #lines;
  #format;
  #base;
  #svg = document.createElementNS(SVG, "svg");
  #most = element("span");
  #since = element("span");

  /** `lines`: a name for each; `format`: makes a text of a value; `base`: of the round numbers in that text. */
  constructor(title, lines, format, base) {
    this.#format = format;
    this.#base = base;
    this.#svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.#svg.setAttribute("preserveAspectRatio", "none");
    this.#svg.setAttribute("role", "img");
    this.#lines = lines.map((name, index) => this.#line(name, index === 0 ? "first" : "second"));
    const words = element("ul", {}, this.#lines.map(({ item }) => item));
    const ends = element("p", { className: "ends" }, [this.#since, this.#most]);
    this.element = element("div", { className: "chart" }, [element("h3", { text: title }), words, this.#svg, ends]);
    this.title = title;
  }

  #line(name, className) {
    const path = document.createElementNS(SVG, "g");
    path.classList.add(className);
    this.#svg.append(path);
    const now = element("b", { text: "–" });
    const item = element("li", { className }, [element("span", { className: "key" }), now, element("span", { text: name })]);
    return { name, path, now, item, values: [] };
  }

  /** Adds a value for each line; null leaves a gap. */
  add(values, every_s) {
    this.#lines.forEach((line, index) => {
      line.values.push(values[index] ?? null);
      if (line.values.length > POINTS) line.values.shift();
      line.now.textContent = this.#format(values[index] ?? null);
    });
    this.#draw(every_s);
  }

  #draw(every_s) {
    const known = this.#lines.flatMap(({ values }) => values).filter((value) => value !== null);
    const most = ceiling(Math.max(0, ...known), this.#base);
    for (const { path, values } of this.#lines) path.replaceChildren(...polylines(values, most));
    this.#most.textContent = known.length === 0 ? "nothing yet" : `up to ${this.#format(most)}`;
    const minutes = ((this.#lines[0].values.length - 1) * every_s) / 60;
    this.#since.textContent = minutes < 1 ? "the last minute" : `the last ${Math.round(minutes)} min`;
    const words = this.#lines.map(({ name, now }) => `${name} ${now.textContent}`);
    this.#svg.setAttribute("aria-label", `${this.title}: ${words.join(", ")}; ${this.#most.textContent}`);
  }
}

/** The stretches of a line between gaps, the newest value at the right edge. */
function polylines(values, most) {
  const stretches = [[]];
  values.forEach((value, index) => {
    if (value === null) return stretches.push([]);
    const x = WIDTH - ((values.length - 1 - index) * WIDTH) / (POINTS - 1);
    const y = HEIGHT - 2 - (value / most) * (HEIGHT - 4);
    return stretches.at(-1).push(`${x.toFixed(1)},${y.toFixed(1)}`);
  });
  return stretches.filter((points) => points.length > 0).map((points) => {
    const line = document.createElementNS(SVG, "polyline");
    // A single point has no length: a line to itself is a dot.
    line.setAttribute("points", (points.length === 1 ? [points[0], points[0]] : points).join(" "));
    return line;
  });
}

/** The next round number: a power of two, or 1, 2 or 5 times a power of ten. */
function ceiling(value, base) {
  if (!(value > 0)) return 1;
  if (base === 2) return 2 ** Math.ceil(Math.log2(value));
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}
