"""How a figure is written: the median of its turns with the least and the greatest, and a table below."""

import statistics
import sys


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def median(rows, field):
    return statistics.median(row[field] for row in rows)


def spread(rows, field, form):
    """The median of the turns, with the least and the greatest."""
    values = sorted(row[field] for row in rows)
    return f"{form(median(rows, field))} ({form(values[0])} to {form(values[-1])})"


def times(value):
    return f"{value:.2f}"


def micros(value):
    return f"{value:,.0f} us"


def count(value):
    return f"{value:,.0f}"


def speed(bytes_per_s):
    return f"{bytes_per_s / 1e6:,.0f} MB/s"


def met(is_met):
    return "met" if is_met else "**missed**"


def table(head, rows):
    aligned = ["---" if number == 0 else "---:" for number in range(len(head))]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, aligned, *rows])
