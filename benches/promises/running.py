"""What is started for a figure: servers, ceilings, loads, and the stores they find. Nothing of it outlives its figure.

What is measured with them, and what it means, is the business of the promises.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import time

from measuring import CHINWAG, REPOSITORY, TICKS_PER_S

EXAMPLES = REPOSITORY / "target" / "release" / "examples"
LOAD, CEILING = EXAMPLES / "load", EXAMPLES / "ceiling"
# How long anything that is started may take beyond what it was asked to.
PATIENCE_S = 120
TEXT = "m" * 200
MOMENT_NS = 1_700_000_000_000_000_000
# No checkpoint comes by itself, and nothing is read beside the load.
QUIET = ["--checkpoint-interval", "24h", "--checkpoint-bytes", "1099511627776", "--scrub-interval", "off"]


class Process:
    """Something that is started, and is gone at the end."""

    started = []

    def __init__(self, command, place):
        self.name = pathlib.Path(command[0]).name
        self.complaints = place / f"{self.name}-{len(Process.started)}.stderr"
        began = time.monotonic()
        with self.complaints.open("wb") as complaints:
            self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=complaints, cwd=place, env=environment())
        Process.started.append(self)
        watchdog = threading.Timer(PATIENCE_S, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline().decode()
        watchdog.cancel()
        self.ready_s = time.monotonic() - began
        self.ready = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "http" not in self.ready:
            self.stop(signal.SIGKILL)
            raise SystemExit(f"{self.name} did not start: {self.complaints.read_text()[-2000:]}")
        self.authority = self.ready["http"]

    def cpu_s(self):
        # proc_pid_stat(5): utime and stime are fields 14 and 15.
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def device_bytes(self):
        """`read_bytes` of proc_pid_io(5): what came from the device. (Its `write_bytes` counts whole large folios.)"""
        lines = pathlib.Path(f"/proc/{self.process.pid}/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("read_bytes:")).split()[1])

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Chinwag(Process):
    """A server on the directory `data`."""

    def __init__(self, place, data, *flags):
        self.data = data
        super().__init__([CHINWAG, "serve", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--data", data, *flags],
                         place)

    def token(self, user, admin=False):
        """HS256 with the directory's key (RFC 7519), as an app's own backend signs."""
        def part(raw):
            return base64.urlsafe_b64encode(raw).rstrip(b"=")
        claims = {"sub": user, "exp": int(time.time()) + 86400, **({"admin": True} if admin else {})}
        text = b".".join(part(json.dumps(half).encode()) for half in ({"alg": "HS256", "typ": "JWT"}, claims))
        secret = bytes.fromhex((self.data / "token.key").read_text().strip())
        return (text + b"." + part(hmac.digest(secret, text, hashlib.sha256))).decode()

    def call(self, path, body, user, ops=False):
        """A call that has to succeed."""
        connection = http.client.HTTPConnection(self.ready["ops"] if ops else self.authority, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", "Authorization":
                                                                f"Bearer {self.token(user, admin=ops)}"})
            response = connection.getresponse()
            reply = response.read()
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {reply.decode(errors='replace')}")
        return json.loads(reply or b"{}")

    def pack_bytes(self):
        """Bytes of packs that were published since the start."""
        connection = http.client.HTTPConnection(self.ready["ops"], timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("chinwag_pack_bytes_total"))

    def snapshot(self):
        self.call("/im.admin/snapshot", {"compact": True}, "operator", ops=True)


def environment():
    """Without what would change the settings of a server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CHINWAG_")}


def run(command, lasts_s=0, given=None):
    """Runs something to its end; gives its standard output, its share of a core, and what it read of the device."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(part) for part in command], input=given, capture_output=True, env=environment(),
                          timeout=lasts_s + PATIENCE_S)
    took_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command[:2]))} ended with {done.returncode}:\n"
                         f"{(done.stdout + done.stderr).decode(errors='replace')[-2000:]}")
    busy_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # getrusage(2): in blocks of 512 bytes.
    return {"output": done.stdout.decode(), "took_s": took_s, "busy": busy_s / took_s,
            "device_bytes": (after.ru_inblock - before.ru_inblock) * 512}


def load(mode, *arguments, lasts_s, given):
    result = run([LOAD, mode, *arguments], lasts_s, given)
    return {**json.loads(result["output"]), "busy": result["busy"]}


def bench(place, flags, seconds, connections=64, mix="send=1"):
    """`chinwag bench`, sends of 200 bytes unless the mix says otherwise."""
    result_file = place / "result.json"
    result = run([CHINWAG, "bench", *flags, "--mix", mix, "--connections", connections, "--size", len(TEXT), "--warm-up",
                  "1s", "--duration", f"{seconds * 1000:.0f}ms", "--json", result_file], seconds)
    return {**json.loads(result_file.read_text()), "busy": result["busy"]}


def send_p99_us(result):
    errors = result["all"]["errors_by_kind"]
    if errors:
        print(f"  errors: {errors}", file=sys.stderr)
    return result["all"]["latency_us"]["p99"]


def disk_p99_us(result):
    return result["disk"]["fdatasync_us"]["p99"]


def import_conversations(data, conversations, messages):
    """A store with these pairs (reader, writer), so many messages each, as a checkpoint would have left it."""
    def lines():
        for number, (reader, writer) in enumerate(conversations):
            last_ns = MOMENT_NS + (number * messages + messages) * 1_000_000
            yield {"type": "conversation", "version": 1, "users": sorted([reader, writer]), "messages": messages,
                   "recalls": 0, "last_timestamp_ns": str(last_ns),
                   "participants": [{"user": writer, "ack_index": messages}, {"user": reader, "ack_index": 0}]}
            for index in range(1, messages + 1):
                timestamp_ns = MOMENT_NS + (number * messages + index) * 1_000_000
                yield {"type": "message", "msg_index": index, "sender": writer,
                       "timestamp_ns": str(timestamp_ns), "msg": TEXT}

    importing = subprocess.Popen([CHINWAG, "import", data], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                 env=environment())
    try:
        # One that refuses a line ends, and says why.
        with contextlib.suppress(BrokenPipeError), importing.stdin as into:
            for line in lines():
                into.write(json.dumps(line).encode() + b"\n")
        if importing.wait(PATIENCE_S):
            raise SystemExit("the import failed")
    finally:
        importing.kill()
        importing.wait()
