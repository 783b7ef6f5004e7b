"""send and pull: calls beside a bare hyper server that answers with as many bytes, by the same load."""

import json
import sys

from promises.running import CEILING, QUIET, Chinwag, Process, bench
from promises.writing import count, median, met, micros, say, spread, table, times


def measure_send(place, quick):
    seconds, turns = (1, 1) if quick else (3, 5)
    always = Chinwag(place, place / "always", *QUIET)
    interval = Chinwag(place, place / "interval", *QUIET, "--sync", "interval")
    ceiling, key = Process([CEILING, "127.0.0.1:0"], place), always.data / "token.key"
    sides = {}
    for connections in (64, 256):
        sides |= {f"ceiling {connections}": side(place, ceiling, key, seconds, connections),
                  f"always {connections}": side(place, always, key, seconds, connections),
                  f"interval {connections}": side(place, interval, key, seconds, connections)}
    sides["socket 64"] = side(place, always, key, seconds, 64, flags=["--transport", "ws", "--pipeline", 8])
    sides["socket 4"] = side(place, always, key, seconds, 4, flags=["--transport", "ws", "--pipeline", 128])
    sides["always 1"] = side(place, always, key, seconds, 1)
    rows = in_turns(sides, turns)
    for process in (always, interval, ceiling):
        process.stop()
    one = [{"ratio": row["p50"] / row["disk"]} for row in rows["always 1"]]
    lines = []
    for connections, goal in ((64, 0.55), (256, 0.65)):
        to = rows[f"ceiling {connections}"]
        lines += [goal_line(f"bare hyper, {connections} connections", to, None, None),
                  goal_line(f"send, `--sync always`, {connections} connections", rows[f"always {connections}"], to, goal),
                  goal_line(f"send, `--sync interval`, {connections} connections", rows[f"interval {connections}"], to, 0.8)]
    lines.append(goal_line("send, `--sync always`, 64 WebSockets with 8 in flight each, beside bare hyper over HTTP",
                           rows["socket 64"], rows["ceiling 64"], 2))
    lines.append(goal_line("the same, 4 WebSockets with 128 in flight each, the other 42 users without one",
                           rows["socket 4"], rows["ceiling 64"], 2))
    first = median(ratios(rows["always 64"], rows["ceiling 64"]), "ratio")
    return (f"**send**: durable sends/s from 64 connections, to a bare hyper server that parses the same request and "
            f"answers: {times(first)}; p50 from one connection, to the p50 of `fdatasync`: {spread(one, 'ratio', times)}; goal "
            f"at most 1.5, {met(median(one, 'ratio') <= 1.5)}.\n"
            f"`chinwag bench` with one thread, 1,000 conversations, messages of 200 bytes; {turns} "
            f"turn{'s' if turns > 1 else ''} of {seconds} s. From one connection: {count(median(rows['always 1'], 'rate'))} "
            f"sends/s, p50 {spread(rows['always 1'], 'p50', micros)}, `fdatasync` of one message before and after "
            f"{spread(rows['always 1'], 'disk', micros)}, server CPU {median(rows['always 1'], 'cpu'):.0f} us a send.\n\n"
            + table(["work", "requests/s", "server CPU a request", "of the ceiling", "goal"], lines))


def measure_pull(place, quick):
    seconds, turns, most = (1, 1, 5_000) if quick else (3, 5, 20_000)
    server = Chinwag(place, place / "data", *QUIET)
    key, few = server.data / "token.key", ["--page", 50]
    # So many conversations that few pages are asked for twice while they are kept.
    many = [*few, "--conversations", most]
    bench(place, ["--url", f"http://{server.authority}", "--key", key, *many, "--history", 60], 1, mix="pull=1")
    page = server.call("/im.chat/pull", {"target": "bench-1", "target_type": "user", "direction": "after",
                                         "start_msg_index": 1, "start_recall_index": 1, "count": 50}, "bench-0")
    if len(page["msgs"]) != 50:
        raise SystemExit(f"an odd page: {len(page['msgs'])} messages")
    reply_bytes = len(json.dumps(page, separators=(",", ":")))
    ceiling = Process([CEILING, "127.0.0.1:0", reply_bytes], place)
    sides = {"ceiling": side(place, ceiling, key, seconds, 64, "pull=1", few),
             "again": side(place, server, key, seconds, 64, "pull=1", few),
             "seldom": side(place, server, key, seconds, 64, "pull=1", many)}
    rows = in_turns(sides, turns)
    server.stop()
    ceiling.stop()
    lines = [goal_line("bare hyper", rows["ceiling"], None, None),
             goal_line("the newest pages of 1,000 conversations", rows["again"], rows["ceiling"], 0.8),
             goal_line(f"the newest pages of {most:,} conversations", rows["seldom"], rows["ceiling"], 0.8)]
    ratio = ratios(rows["again"], rows["ceiling"])
    return (f"**pull**: pages of 50 messages of 200 bytes, to a bare hyper server that answers with as many bytes: "
            f"{spread(ratio, 'ratio', times)}; goal at least 0.8, {met(median(ratio, 'ratio') >= 0.8)}.\n"
            f"{reply_bytes:,} bytes of JSON, over 64 connections; {turns} turn{'s' if turns > 1 else ''} of {seconds} s. The "
            f"pages of 1,000 conversations are kept encoded, those of {most:,} are more than is kept.\n\n"
            + table(["work", "requests/s", "server CPU a request", "of the ceiling", "goal"], lines))


def in_turns(sides, turns):
    """Each side once a turn, in one order and in the other; rows by side."""
    rows = {name: [] for name in sides}
    for turn in range(turns):
        for name in list(sides) if turn % 2 == 0 else list(sides)[::-1]:
            rows[name].append(sides[name]())
        say(f"turn {turn + 1}/{turns}: " + ", ".join(f"{name} {rows[name][-1]['rate']:,.0f}/s" for name in sides))
    return rows


def side(place, server, key, seconds, connections, mix="send=1", flags=()):
    """A measurement of `server` under one load."""
    # With the directory, the disk is measured beside it.
    ours = ["--data", server.data] if isinstance(server, Chinwag) else ["--key", key]

    def measure_once():
        before = server.cpu_s()
        result = bench(place, ["--url", f"http://{server.authority}", *ours, *flags], seconds, connections, mix)
        requests = result["all"]["requests_per_s"] * (seconds + 1)
        if result["all"]["errors"]:
            print(f"  errors: {result['all']['errors_by_kind']}", file=sys.stderr)
        return {"rate": result["all"]["requests_per_s"], "cpu": (server.cpu_s() - before) * 1e6 / requests,
                "p50": result["all"]["latency_us"]["p50"], "disk": result["disk"] and result["disk"]["fdatasync_us"]["p50"]}
    return measure_once


def ratios(rows, to):
    return [{"ratio": row["rate"] / other["rate"]} for row, other in zip(rows, to)]


def goal_line(what, rows, to, goal):
    """A line of the tables of `send` and `pull`."""
    line = [what, count(median(rows, "rate")), f"{median(rows, 'cpu'):.1f} us"]
    if to is None:
        return [*line, "1", ""]
    ratio = ratios(rows, to)
    return [*line, spread(ratio, "ratio", times), f"at least {goal:.2f}: {met(median(ratio, 'ratio') >= goal)}"]
