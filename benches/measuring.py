"""What `benches/scale` and `benches/memory` share: servers on a directory that goes away, a load on them, what the
system says of a process, and a part of docs/performance.md. What is measured, and what it means, is theirs. Of
`benches/figures` it knows where things are, and on what machine.

Everything listens on loopback. Servers die with the script, however it ends.
"""

import contextlib
import json
import os
import pathlib
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
CHINWAG = REPOSITORY / "target" / "release" / "chinwag"
DOCUMENT = REPOSITORY / "docs" / "performance.md"
TEXT_BYTES = 200
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# A million conversations are indexed before a server is ready.
READY_S = 60
STOP_S = 60
# Beyond the time that a load is asked to last: the first messages of its conversations.
PREPARATION_S = 180
DESCRIPTORS = 65536


class Impossible(Exception):
    """A measurement that this machine or this server does not allow."""


def prepare(built):
    """Builds our side, the way it is released, and takes as many descriptors as there are."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (max(DESCRIPTORS, hard), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            break
        except (ValueError, OSError):
            continue
    if not built:
        subprocess.run(["cargo", "build", "--quiet", "--locked", "--release", "--bin", "chinwag"], check=True,
                       cwd=REPOSITORY)


@contextlib.contextmanager
def directory(parent, prefix):
    """A directory that is removed at the end, behind every server."""
    place = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield place
    finally:
        for server in list(Server.running):
            server.stop()
        shutil.rmtree(place, ignore_errors=True)


def outlive_nobody(command):
    """The command, as a process that dies when the script does; it keeps its pid."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *(str(part) for part in command)]


class Server:
    """A server on a data directory, which it makes unless it is there."""

    running = []

    def __init__(self, data, *flags):
        self.data = data
        self.process = subprocess.Popen(
            outlive_nobody([CHINWAG, "serve", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--data", data,
                            "--log-level", "warn", *flags]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=data.parent,
            env={name: value for name, value in os.environ.items() if not name.startswith("CHINWAG_")})
        Server.running.append(self)
        readable, _, _ = select.select([self.process.stdout], [], [], READY_S)
        ready = self.process.stdout.readline().decode() if readable else ""
        addresses = dict(word.split("=", 1) for word in ready.split() if "=" in word)
        if not {"http", "ops"} <= addresses.keys():
            self.stop()
            raise Impossible(f"a server was not ready: {ready.strip() or self.process.returncode}")
        self.address, self.ops = addresses["http"], addresses["ops"]

    def metric(self, name):
        """The sum of a metric's lines, whatever their labels."""
        with urllib.request.urlopen(f"http://{self.ops}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def checkpoint(self):
        """Orders one, and waits for it."""
        token = subprocess.run([CHINWAG, "token", "--user", "operator", "--admin", "--data", self.data], check=True,
                               capture_output=True, text=True).stdout.strip()
        request = urllib.request.Request(
            f"http://{self.ops}/im.admin/snapshot", data=b"{}", method="POST",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=120).close()

    def rss_bytes(self):
        # proc_pid_statm(5): the second field is resident pages.
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        # proc_pid_stat(5): utime and stime are fields 14 and 15.
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def stop(self, how=signal.SIGTERM):
        Server.running.remove(self)
        self.process.send_signal(how)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def load(server, seconds, warm_up, **flags):
    """A closed loop of `chinwag bench`. Gives what it wrote, and the server's CPU time per request, those included that
    came before the measured ones."""
    command = [CHINWAG, "bench", "--url", f"http://{server.address}", "--key", server.data / "token.key", "--size",
               TEXT_BYTES, "--duration", f"{seconds * 1000:.0f}ms", "--warm-up", f"{warm_up * 1000:.0f}ms"]
    for flag, value in flags.items():
        command += [f"--{flag}", value]
    result_file = server.data.parent / "result.json"
    before, asked = server.cpu_s(), server.metric("chinwag_requests_total")
    try:
        ended = subprocess.run(outlive_nobody([*command, "--json", result_file]), capture_output=True, text=True,
                               timeout=seconds + warm_up + PREPARATION_S)
    except subprocess.TimeoutExpired:
        raise Impossible("the load did not end") from None
    if ended.returncode != 0:
        raise Impossible((ended.stderr.strip().splitlines() or [f"the load ended with {ended.returncode}"])[-1])
    result = json.loads(result_file.read_text())
    asked = server.metric("chinwag_requests_total") - asked
    result["server_cpu_us"] = (server.cpu_s() - before) * 1e6 / max(asked, 1)
    return result


def store(data, lines):
    """Makes a data directory of the lines of an export, given as bytes."""
    process = subprocess.Popen(outlive_nobody([CHINWAG, "import", data]), stdin=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.writelines(lines)
        why = process.stderr.read().decode().strip()
        if process.wait():
            raise Impossible(why or f"the import ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def conversation(users, messages):
    """The lines of a direct conversation of messages by the first of its two users."""
    one, other = sorted(users)
    sender, text, moment = users[0], "m" * TEXT_BYTES, "1769860800000000000"
    lines = [f'{{"type":"conversation","version":1,"users":["{one}","{other}"],"messages":{messages},"recalls":0,'
             f'"last_timestamp_ns":"{moment}","participants":[{{"user":"{sender}","ack_index":{messages}}}]}}\n']
    lines += [f'{{"type":"message","msg_index":{index},"sender":"{sender}","timestamp_ns":"{moment}","msg":"{text}"}}\n'
              for index in range(1, messages + 1)]
    return "".join(lines).encode()


def cold_conversations(count):
    """So many of one message, whose users stand in a ring with ten conversations each. None of the load's."""
    # Five have ten pairs.
    users = max(count // 5, min(count + 1, 5))
    for number in range(count):
        one, distance = number % users, 1 + number // users
        yield conversation((f"cold-{one}", f"cold-{(one + distance) % users}"), 1)


def machine(place):
    cpu = next(line for line in open("/proc/cpuinfo") if line.startswith("model name")).split(":")[1].strip()
    memory = next(line for line in open("/proc/meminfo") if line.startswith("MemTotal")).split()[1]
    system = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", str(place)], capture_output=True, text=True)
    return (f"{os.cpu_count()} cores ({cpu}), {int(memory) >> 20} GiB, Linux {os.uname().release}, "
            f"{system.stdout.strip()}")


def measured_with(place, began):
    """The line that says how, where and beside what; `began` is the load average before anything was measured."""
    command = " ".join([str(pathlib.Path(sys.argv[0]).resolve().relative_to(REPOSITORY)), *sys.argv[1:]])
    return (f"Measured with `{command}` on {machine(place)}; load average {began:.1f} before, {os.getloadavg()[1]:.1f} "
            f"in the last five minutes of it (its own included).")


def write_document(name, text):
    """Replaces what stands between the marks of that name."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    document = DOCUMENT.read_text()
    head, rest = document.split(begin)
    _, tail = rest.split(end)
    DOCUMENT.write_text(head + begin + text + end + tail)
