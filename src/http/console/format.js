/** Numbers as people read them. What is not known is a dash. */

const DASH = "–";

function known(format) {
  return (value) => (value === null || value === undefined || Number.isNaN(value) ? DASH : format(value));
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** Three digits, or all of a number that has more before the point. */
function short(value) {
  return Math.abs(value) >= 1000 ? whole.format(value) : digits.format(value);
}

export const count = known((value) => whole.format(value));
export const rate = known(short);
export const text = known(String);

export const bytes = known((value) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  for (; value >= 1024 && unit + 1 < units.length; unit += 1) value /= 1024;
  return `${short(value)} ${units[unit]}`;
});

/** A time in seconds, of any length. */
export const seconds = known((value) => {
  if (value === 0) return "0 s";
  if (value < 1e-3) return `${short(value * 1e6)} µs`;
  if (value < 1) return `${short(value * 1e3)} ms`;
  if (value < 120) return `${short(value)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
});
