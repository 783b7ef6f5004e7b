"""checkpoint and scan: what the disk costs, beside a load and at a start."""

import contextlib
import os
import resource
import signal
import threading
import time

from measuring import CHINWAG
from promises.running import QUIET, Chinwag, bench, disk_p99_us, import_conversations, run, send_p99_us
from promises.writing import count, median, met, micros, say, speed, spread, table, times


def measure_checkpoint(place, quick):
    """Windows in turn: without, and with orders to checkpoint and to merge everything one after the other."""
    conversations, seconds, turns = (4_000, 2, 1) if quick else (20_000, 6, 5)
    data = place / "data"
    import_conversations(data, [(f"from-{number}", f"to-{number}") for number in range(conversations)], 25)
    server = Chinwag(place, data, *QUIET)
    flags = ["--url", f"http://{server.authority}", "--data", data, "--rate", 5_000]
    bench(place, flags, 1)
    rows = []
    for turn in range(turns):
        row = {}
        for kind in ["without", "with"] if turn % 2 == 0 else ["with", "without"]:
            orders = SnapshotLoop(server) if kind == "with" else contextlib.nullcontext()
            with orders:
                result = bench(place, flags, seconds)
            row[kind], row[f"{kind}_p50"] = send_p99_us(result), result["all"]["latency_us"]["p50"]
            row[f"{kind}_disk"], row[f"{kind}_rate"] = disk_p99_us(result), result["all"]["requests_per_s"]
            if kind == "with":
                row |= {"orders": orders.done, "written": orders.bytes_per_s}
        row["ratio"] = row["with"] / row["without"]
        rows.append(row)
        say(f"turn {turn + 1}/{turns}: p99 {row['with']:.0f} us with, {row['without']:.0f} us without; "
            f"{row['orders']} orders")
    packs_bytes = sum(file.stat().st_size for file in (data / "snap").glob("*.pack"))
    server.stop()
    ratio = median(rows, "ratio")
    return (f"**checkpoint**: p99 of a send while checkpoints and compactions run, to that without: "
            f"{spread(rows, 'ratio', times)}; goal at most 2, {met(ratio <= 2)}.\n"
            f"5,000 durable sends/s (open loop, 64 connections) over {packs_bytes / 1e6:,.0f} MB of packs in {conversations:,} "
            f"conversations; {turns} turns of {seconds} s each way. \"With\" is "
            f"`POST /im.admin/snapshot {{\"compact\":true}}` again and again: a checkpoint, and all packs merged into one; "
            f"{median(rows, 'orders'):.0f} of them in a turn, {speed(median(rows, 'written'))} of packs. Each also begins another "
            f"segment of the log, 64 MiB of zeros.\n\n"
            + table(["", "sends/s", "p50", "p99", "fdatasync p99 around it"],
                    [[name, count(median(rows, f"{name}_rate")), spread(rows, f"{name}_p50", micros),
                      spread(rows, name, micros), micros(median(rows, f"{name}_disk"))]
                     for name in ["without", "with"]]))


class SnapshotLoop:
    """Orders checkpoints with compaction, one as soon as the other is done, inside a `with`."""

    def __init__(self, server):
        self.server, self.done, self.failed, self.over = server, 0, None, threading.Event()
        self.thread = threading.Thread(target=self.order)

    def order(self):
        try:
            while not self.over.is_set():
                self.server.snapshot()
                self.done += 1
        except (SystemExit, OSError) as why:
            self.failed = why

    def __enter__(self):
        self.began, self.before = time.monotonic(), self.server.pack_bytes()
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        took_s = time.monotonic() - self.began
        self.bytes_per_s = (self.server.pack_bytes() - self.before) / took_s
        if self.failed:
            raise SystemExit(f"an order failed: {self.failed}")


def measure_scan(place, quick):
    """First everything is in the log, then everything is in one pack."""
    wanted, turns = (48 << 20, 1) if quick else (512 << 20, 3)
    data = place / "data"
    server = Chinwag(place, data, *QUIET, "--sync", "never")
    while files_bytes(log_files(data)) < wanted:
        bench(place, ["--url", f"http://{server.authority}", "--data", data], 2 if quick else 12)
        say(f"{files_bytes(log_files(data)) >> 20} MiB of log")
    server.stop(signal.SIGKILL)
    looks = {"`chinwag verify` of the log": [], "a start that replays the log": []}
    sizes, messages = [files_bytes(log_files(data))], 0
    for _ in range(turns):
        looks["`chinwag verify` of the log"].append(look(log_files(data), "cold", lambda: verify(data)))
        looks["a start that replays the log"].append(look(log_files(data), "cold", lambda: start(place, data)))
    server = Chinwag(place, data, *QUIET)
    messages = int(server.ready["messages"])
    server.snapshot()
    server.stop()
    packs = [(pack, pack.stat().st_size) for pack in sorted((data / "snap").glob("*.pack"))]
    sizes.append(files_bytes(packs))
    for heat in ["cold", "warm"]:
        looks[f"`chinwag verify` of packs, {heat}"] = [look(packs, heat, lambda: verify(data)) for _ in range(turns)]
    lines = [[name, speed(median(rows, "rate")), speed(median(rows, "read")), spread(rows, "ratio", times),
              met(median(rows, "ratio") >= 0.5), speed(median(rows, "by_cpu"))] for name, rows in looks.items()]
    return (f"**scan**: how fast everything on the disk is read, to a sequential read of the same bytes; goal at least "
            f"0.5.\n{messages:,} messages of 200 bytes, first as {sizes[0] / 1e6:,.0f} MB of log, then as "
            f"{sizes[1] / 1e6:,.0f} MB of packs; {turns} turn{'s' if turns > 1 else ''}. The log is always read from the "
            f"device: what is asked is what the disk has. Cold: so was the sequential read, with its pages dropped before "
            f"and its bytes counted. Warm: both from the page cache. `verify` decodes every record, reads packs once for "
            f"their checksums and once as conversations, and brings every conversation into memory; its rate is the files' "
            f"size by its time.\n\n"
            + table(["", "Chinwag", "sequential read", "ratio", "goal", "Chinwag, by a second of its CPU"], lines))


def log_files(data):
    """The log's segments with how much of each is written: the last one ends in the zeros that were made ahead."""
    segments = sorted((data / "wal").glob("*.wal"))
    files = [(segment, segment.stat().st_size) for segment in segments]
    if segments:
        files[-1] = segments[-1], len(segments[-1].read_bytes().rstrip(b"\0"))
    return files


def files_bytes(files):
    return sum(length for _, length in files)


def look(files, heat, task):
    """A sequential read of the files, and a task that reads them too."""
    total = files_bytes(files)
    heated(files, heat)
    before = device_bytes()
    read_s = sequential_read(files)
    check_cold("the sequential read", heat, device_bytes() - before, total)
    heated(files, heat)
    done = task()
    check_cold("what is measured", heat, done["device_bytes"], total)
    row = {"read": total / read_s, "rate": total / done["took_s"], "by_cpu": total / done["cpu_s"]}
    row["ratio"] = row["rate"] / row["read"]
    say(f"{heat}: {speed(row['rate'])}, sequential read {speed(row['read'])}, by CPU {speed(row['by_cpu'])}")
    return row


def verify(data):
    result = run([CHINWAG, "verify", data])
    return result | {"cpu_s": result["busy"] * result["took_s"]}


def start(place, data):
    server = Chinwag(place, data, *QUIET)
    result = {"took_s": server.ready_s, "cpu_s": server.cpu_s(), "device_bytes": server.device_bytes()}
    # As a crash: a drain would put everything into packs.
    server.stop(signal.SIGKILL)
    return result


def sequential_read(files):
    """Seconds that a plain read takes, a MiB at a time."""
    buffer = memoryview(bytearray(1 << 20))
    began = time.monotonic()
    for path, length in files:
        with open(path, "rb", buffering=0) as file:
            while length > 0 and (read := file.readinto(buffer[:min(length, len(buffer))])):
                length -= read
    return time.monotonic() - began


def heated(files, heat):
    """Brings all pages of the files into the cache, or drops them."""
    if heat == "warm":
        sequential_read(files)
        return
    for path, _ in files:
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def device_bytes():
    # getrusage(2): in blocks of 512 bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock * 512


def check_cold(who, heat, from_device, total):
    """A cold read that did not come from the device would say nothing."""
    if heat == "cold" and from_device < total * 0.8:
        raise SystemExit(f"{who} took {from_device} of {total} bytes from the device: their pages were not dropped")
