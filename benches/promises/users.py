"""list, delivery, fanout and open-loop: what users wait for, whoever else is there."""

import json
import os
import statistics
import tempfile
import time

from promises.running import (CEILING, LOAD, TEXT, Chinwag, Process, bench, disk_p99_us, import_conversations, load,
                              send_p99_us)
from promises.writing import count, median, met, micros, say, spread, table, times


def measure_list(place, quick):
    conversations, clients, seconds, turns = (10_000, 32, 1, 1) if quick else (10_000, 32, 4, 5)
    data = place / "data"
    import_conversations(data, [("reader", f"peer-{number:05}") for number in range(conversations)], 3)
    server = Chinwag(place, data)
    body = {"count": 50}
    began = time.monotonic()
    page = server.call("/im.chat/list", body, "reader")
    first_ms = (time.monotonic() - began) * 1000
    if len(page["chats"]) != 50 or page["total_unread"] == 0:
        raise SystemExit(f"an odd list: {len(page['chats'])} conversations, {page['total_unread']} unread")
    request = http_request(server, body)
    reply_bytes = load("repeat", server.authority, 1, 0.2, lasts_s=1, given=request)["reply_bytes"]
    ceiling = Process([CEILING, "127.0.0.1:0", reply_bytes], place)
    rows = []
    for turn in range(turns):
        row, sides = {}, [("ours", server), ("ceiling", ceiling)]
        for name, side in sides if turn % 2 == 0 else sides[::-1]:
            before = side.cpu_s()
            result = load("repeat", side.authority, clients, seconds, lasts_s=seconds, given=request)
            row |= {name: result["requests_per_s"], f"{name}_p50": result["p50_us"], f"{name}_p99": result["p99_us"],
                    f"{name}_busy": result["busy"] * 100,
                    # The warm-up costs as well.
                    f"{name}_cpu": (side.cpu_s() - before) * 1e6 / (result["requests_per_s"] * (seconds + 0.5))}
        row["ratio"] = row["ours"] / row["ceiling"]
        rows.append(row)
        say(f"turn {turn + 1}/{turns}: {row['ours']:,.0f} lists/s, {row['ceiling']:,.0f}/s of the ceiling")
    server.stop()
    ceiling.stop()
    ratio = median(rows, "ratio")
    return (f"**list**: `POST /im.chat/list` of 50 out of {conversations:,} conversations, to the ceiling: "
            f"{spread(rows, 'ratio', times)}; goal at least 0.5, {met(ratio >= 0.5)}.\n"
            f"A reply is {reply_bytes:,} bytes; the ceiling is a bare hyper server that answers every request with as many "
            f"constant ones. {clients} connections of one user, {turns} turn{'s' if turns > 1 else ''} of {seconds} s. The "
            f"first list after the start, which reads where {conversations:,} conversations stand, took {first_ms:.0f} ms.\n\n"
            + table(["", "lists/s", "p50", "p99", "server CPU per list", "the load's share of a core"],
                    [[label, spread(rows, name, count), micros(median(rows, f"{name}_p50")),
                      micros(median(rows, f"{name}_p99")), f"{median(rows, f'{name}_cpu'):.1f} us",
                      f"{median(rows, f'{name}_busy'):.0f} %"]
                     for name, label in [("ours", "Chinwag"), ("ceiling", "ceiling")]]))


def http_request(server, body):
    body = json.dumps(body)
    return (f"POST /im.chat/list HTTP/1.1\r\nHost: {server.authority}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {server.token('reader')}\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode()


def measure_delivery(place, quick):
    pairs, rate, seconds, turns = (16, 1_000, 2, 1) if quick else (16, 1_000, 10, 5)
    server = Chinwag(place, place / "data")
    talks = [{"sender_token": server.token(f"sender-{number}"), "reader_token": server.token(f"reader-{number}"),
              "reader": f"reader-{number}"} for number in range(pairs)]
    rows = []
    for turn in range(turns):
        before = fdatasyncs_us(place)
        row = load("delivery", server.authority, rate, seconds, lasts_s=seconds, given=json.dumps(talks).encode())
        row["sync"] = statistics.median(before + fdatasyncs_us(place))
        row["share_before"] *= 100
        rows.append(row)
        say(f"turn {turn + 1}/{turns}: p50 {row['p50_us']:.0f} us, p99 {row['p99_us']:.0f} us; sync {row['sync']:.0f} us")
    server.stop()
    p50, p99 = median(rows, "p50_us"), median(rows, "p99_us")
    return (f"**delivery**: from a send's acknowledgement to its event on another user's WebSocket: p50 "
            f"{spread(rows, 'p50_us', micros)}, p99 {spread(rows, 'p99_us', micros)}; goals 300 us and 5 ms, "
            f"{met(p50 < 300 and p99 < 5_000)}.\n"
            f"{rate:,} sends/s (open loop) in {pairs} conversations, senders over HTTP; {turns} "
            f"turn{'s' if turns > 1 else ''} of {seconds} s. Events are handed over before the answers of their batch, so "
            f"{spread(rows, 'share_before', lambda share: f'{share:.0f} %')} came before the acknowledgement; their time is "
            f"negative.\n\n"
            + table(["", "p50", "p99"],
                    [["acknowledged to delivered", micros(p50), micros(p99)],
                     ["request to acknowledged", micros(median(rows, "acknowledged_p50_us")),
                      micros(median(rows, "acknowledged_p99_us"))],
                     ["request to delivered", micros(median(rows, "delivered_p50_us")),
                      micros(median(rows, "delivered_p99_us"))],
                     ["`fdatasync` of one message, before and after", micros(median(rows, "sync")), ""]]))


def fdatasyncs_us(place, samples=200):
    """What the disk takes for one message at a time, written into zeros as the log does it."""
    message, taken = b"m" * (len(TEXT) + 128), []
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(bytes(samples * len(message)))
        file.flush()
        os.fsync(file.fileno())
        for number in range(samples):
            began = time.monotonic()
            os.pwrite(file.fileno(), message, number * len(message))
            os.fdatasync(file.fileno())
            taken.append((time.monotonic() - began) * 1e6)
    return taken


def measure_fanout(place, quick):
    seconds, turns = (1, 1) if quick else (3, 5)
    server = Chinwag(place, place / "data")
    parts = [fan_out(place, server, members, sockets, seconds, turns) for members, sockets in [(200, 200), (1000, 500)]]
    server.stop()
    first = parts[0]
    lines = [[f"{part[0]['members']:,} members beside the writers, {part[0]['readers']} sockets", spread(part, "deliveries_per_s", count),
              count(median(part, "sends_per_s")), spread(part, "bare", count), spread(part, "ratio", times),
              f"{median(part, 'busy'):.0f} %, {median(part, 'bare_busy'):.0f} %"] for part in parts]
    return (f"**fanout**: deliveries/s to {first[0]['readers']} sockets {spread(first, 'deliveries_per_s', count)}, to a bare "
            f"broadcast: {spread(first, 'ratio', times)}; goals at least 300,000, "
            f"{met(median(first, 'deliveries_per_s') >= 300_000)}, and 0.7, {met(median(first, 'ratio') >= 0.7)}.\n"
            f"Four writers on WebSockets with 128 durable sends of 200 bytes in flight each, an event's frame "
            f"{median(first, 'frame_bytes'):.0f} bytes; counted by the sockets that read. The broadcast stores nothing "
            f"and looks into nothing: a task for each socket, what waits for it goes out with one write. {turns} "
            f"turn{'s' if turns > 1 else ''} of {seconds} s.\n\n"
            + table(["", "deliveries/s", "sends/s", "of the bare broadcast", "ratio", "the load's share of a core"], lines))


def fan_out(place, server, members, sockets, seconds, turns):
    group, users = f"group-{members}", [f"member-{number}" for number in range(members)]
    writers = [f"writer-{number}" for number in range(4)]
    server.call("/im.group/create", {"group_id": group, "name": group, "members": users + writers[1:]}, writers[0])
    talk = json.dumps({"writer_tokens": [server.token(writer) for writer in writers], "group": group,
                       "reader_tokens": [server.token(user) for user in users[:sockets]]}).encode()
    rows, bare = [], None
    for turn in range(turns):
        row = load("fanout", server.authority, 128, seconds, lasts_s=seconds, given=talk) | {"members": members}
        bare = Process([LOAD, "broadcast", round(row["frame_bytes"])], place)
        other = load("fanout", bare.authority, 128, seconds, lasts_s=seconds, given=talk)
        bare.stop()
        row |= {"bare": other["deliveries_per_s"], "bare_busy": other["busy"] * 100, "busy": row["busy"] * 100,
                "ratio": row["deliveries_per_s"] / other["deliveries_per_s"]}
        rows.append(row)
        say(f"turn {turn + 1}/{turns}, {sockets} sockets: {row['deliveries_per_s']:,.0f} deliveries/s, {row['bare']:,.0f} of "
            f"the bare broadcast; {row['refused']} refused")
    return rows


def measure_open_loop(place, quick):
    seconds, turns = (3, 1) if quick else (15, 5)
    server, rows = Chinwag(place, place / "data"), []
    for turn in range(turns):
        result = bench(place, ["--url", f"http://{server.authority}", "--data", server.data, "--rate", 10_000], seconds)
        row = {"p50": result["all"]["latency_us"]["p50"], "p99": send_p99_us(result), "disk": disk_p99_us(result),
               "rate": result["all"]["requests_per_s"], "unsent": result["unsent"]}
        row["ratio"] = row["p99"] / row["disk"]
        rows.append(row)
        say(f"turn {turn + 1}/{turns}: p99 {row['p99']:.0f} us at {row['rate']:.0f}/s, fdatasync p99 {row['disk']:.0f} us")
    server.stop()
    ratio = median(rows, "ratio")
    return (f"**open-loop**: p99 of a durable send at 10,000/s, to the p99 of `fdatasync` in the same minute: "
            f"{spread(rows, 'ratio', times)}; goal at most 4, {met(ratio <= 4)}.\n"
            f"Open loop, 64 connections, latency from when a request was due; {turns} turn{'s' if turns > 1 else ''} of "
            f"{seconds} s. The disk's time is for a batch of 64 messages, before and after the load.\n\n"
            + table(["sends/s", "p50", "p99", "fdatasync p99"],
                    [[count(median(rows, "rate")), spread(rows, "p50", micros), spread(rows, "p99", micros),
                      spread(rows, "disk", micros)]]))
