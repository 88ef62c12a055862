"""A feedmill of its own for a measurement: the stack in a directory that goes afterwards, and what can be asked of its processes.

Nothing here prints. All of it is for one thread.
"""
import binascii
import bisect
import ctypes
import glob
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

BINARIES = os.environ.get("FEEDMILL_BENCH_BIN", "build/release/bin")
BUCKETS = 256
TICK = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
HERE = os.path.dirname(os.path.abspath(__file__))


def rfc3339(seconds):
    ms = int(seconds * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + ".%03dZ" % (ms % 1000)


class Failed(Exception):
    """The measurement can't go on; the text says why."""


def bucket_of(user):
    """keys_bucket() of common/keys.c: CRC-16/XMODEM."""
    return binascii.crc_hqx(user.encode(), 0) % BUCKETS


def timeline_key(user, prefix="tl"):
    return "%s:{%d}:%s" % (prefix, bucket_of(user), user)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def end_with_parent():
    """In a child before exec: it does not outlive us, even if we are killed; Ctrl-C reaches only us."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_process(process, seconds):
    """SIGTERM, and SIGKILL for what does not end in time."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Redis:
    """As much of a client as is needed: commands, and many in one go."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def __call__(self, *words):
        return self.many([words])[0]

    def many(self, commands):
        out = []
        for words in commands:
            out.append(b"*%d\r\n" % len(words))
            for w in words:
                w = w if isinstance(w, bytes) else str(w).encode()
                out.append(b"$%d\r\n%s\r\n" % (len(w), w))
        self.socket.sendall(b"".join(out))
        return [self.reply() for _ in commands]

    def bulk(self, commands, step=2000):
        """Any number of commands, of an iterator too; answers the last answers."""
        answers, batch = [], []
        for c in commands:
            batch.append(c)
            if len(batch) == step:
                answers, batch = self.many(batch), []
        return self.many(batch) if batch else answers

    def reply(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Failed("redis: " + rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            return self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b"+":
            return rest.decode()
        raise Failed("redis: the connection ended")

    def close(self):
        self.file.close()
        self.socket.close()


class Stack:
    """make run's stack without the demo; options of the three processes are given by environment."""

    def __init__(self, binaries, environment=None):
        self.bin = binaries
        self.dir = tempfile.mkdtemp(prefix="fmb.")
        self.port = free_port()
        # A slow machine is behind by more than a minute at times: then it is measured all the same, not refused.
        self.environment = dict(os.environ, FEEDMILL_PUBLISH_LAG_MAX="0", **(environment or {}))
        self.others, self.asked = [], 0
        self.process = self.redis = self.api = None
        try:
            self.begin()
        except BaseException:
            self.end()
            raise

    def begin(self):
        self.data = self.dir + "/run"
        log = open(self.dir + "/stack.out", "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [self.bin + "/stack", "--port", str(self.port), "--data", self.data, "--demo=no"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent, env=self.environment)
        log.close()
        until = time.monotonic() + 60
        while " ready on " not in self.said():
            if self.process.poll() is not None or time.monotonic() > until:
                raise Failed("the stack does not start:\n" + self.said())
            time.sleep(0.1)
        self.key = open(self.data + "/admin.key", encoding="utf-8").read().strip()
        self.ports = dict(re.findall(r"^(\w+) (\d+)$", open(self.data + "/ports", encoding="utf-8").read(), re.M))
        self.socket_path = glob.glob(self.data + "/redis/*.sock")[0]
        self.redis = Redis(self.socket_path)
        self.api = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def said(self):
        with open(self.dir + "/stack.out", encoding="utf-8") as f:
            return f.read()

    def story(self):
        """What the stack said after it was ready: who ended, who came back; and the last lines of fanout's log."""
        with open(self.data + "/logs/fanout-1.log", encoding="utf-8") as f:
            last = f.read().splitlines()[-5:]
        return [x for x in self.said().splitlines() if " ended with " in x or " is back" in x] + last

    def end(self):
        for p in self.others:
            end_process(p, 6)
        if self.redis:
            self.redis.close()
        if self.process:
            end_process(self.process, 12)
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- the API ----

    def request(self, method, path, body=None, content="application/json"):
        headers = {"Authorization": "Bearer " + self.key}
        if body is not None:
            headers["Content-Type"] = content
        if time.monotonic() - self.asked > 5:  # the server closes idle connections
            self.api.close()
        self.api.request(method, path, body, headers)
        answer = self.api.getresponse()
        data = answer.read()
        self.asked = time.monotonic()
        if answer.status >= 300:
            raise Failed("%s %s: %d %s" % (method, path, answer.status, data[:300].decode()))
        return answer, data

    def lines(self, path, lines):
        answer, data = self.request("POST", path, "\n".join(lines), "application/x-ndjson")
        if b"/problems/" in data:
            raise Failed("%s: %s" % (path, data[data.index(b"/problems/") - 20:][:300].decode()))
        return answer.getheader("Feed-Position")

    def publish(self, publisher, tag, n, text="b" * 200):
        """n items in requests of up to 1,000, a millisecond apart, the last one now: each is the newest when it comes, as it is
        when they are published one by one; within one millisecond ids are in no order. The position of the last one."""
        position, began = None, time.time() - n / 1000
        for first in range(0, n, 1000):
            position = self.lines("/v1/items/bulk", [
                json.dumps({"publisher": publisher, "external_id": "%s-%d" % (tag, i), "title": "Item %d" % i, "body": text,
                            "published_at": rfc3339(began + i / 1000)})
                for i in range(first, min(n, first + 1000))])
        return position

    def follow(self, edges):
        """(user, publisher) of any number, in requests of 10,000; the position of the last one."""
        position, batch = None, []
        for user, publisher in edges:
            batch.append('{"user":"%s","kind":"publisher","name":"%s"}' % (user, publisher))
            if len(batch) == 10000:
                position, batch = self.lines("/v1/follows/bulk", batch), []
        return self.lines("/v1/follows/bulk", batch) if batch else position

    def read_pages(self, users, query="limit=1&fields=ids", connections=32):
        """Each user's page once, by wrk; what it takes to be an active reader."""
        path = self.dir + "/readers"
        with open(path, "w", encoding="utf-8") as f:
            f.write("".join(u + "\n" for u in users))
        command = ["wrk", "-t1", "-c%d" % connections, "-d600s", "-s", HERE + "/each.lua",
                   "http://127.0.0.1:%d" % self.port, "--", path, self.key, query]
        out = subprocess.run(command, capture_output=True, text=True, preexec_fn=end_with_parent, timeout=660)
        if not re.search(r"^answered \d+ bad 0 ", out.stdout, re.M):
            raise Failed("wrk: " + out.stdout + out.stderr)
        for u in self.without_timeline(users):  # slow ones, of which wrk did not wait for the answer
            self.request("GET", "/v1/users/%s/feed?%s" % (u, query))
        lost = self.without_timeline(users)
        if lost:
            raise Failed("%d of %d readers have no timeline, %s among them" % (len(lost), len(users), lost[0]))

    def without_timeline(self, users):
        out = []
        for a in range(0, len(users), 2000):
            part = users[a:a + 2000]
            there = self.redis.many([("EXISTS", timeline_key(u)) for u in part])
            out += [u for u, x in zip(part, there) if not x]
        return out

    def copy_timelines(self, users):
        """Gives all users copies of the first one's timeline, and raises the stamps of the buckets, as building them would
        have. fanout does not know of them until restart_fanout()."""
        self.redis.bulk(("COPY", timeline_key(users[0], k), timeline_key(u, k)) for u in users[1:] for k in ("tl", "pf"))
        r = self.redis("HGET", timeline_key(users[0], "pf"), "r")
        for b in range(BUCKETS):
            if (self.redis("HGET", "bk:{%d}" % b, "stamp") or b"") < r:
                self.redis("HSET", "bk:{%d}" % b, "stamp", r)

    # ---- fanout ----

    def metrics(self, port=None):
        c = http.client.HTTPConnection("127.0.0.1", int(port or self.ports["fanout"]), timeout=10)
        c.request("GET", "/metrics")
        text = c.getresponse().read().decode()
        c.close()
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")

    def metric(self, name, port=None):
        return float(self.metrics(port).get(name, 0))

    def audit(self):
        """(timelines that fanout itself compared with MongoDB meanwhile, findings)."""
        m = self.metrics()
        return tuple(int(sum(float(v) for k, v in m.items() if k.startswith("feedmill_fanout_audit_%s_total" % x)))
                     for x in ("checks", "findings"))

    def deliveries(self):
        return sum(self.metric('feedmill_fanout_timelines_total{script="deliver"}', p)
                   for p in [self.ports["fanout"]] + [q.port for q in self.others])

    def wait_applied(self, position, seconds=300, pause=0.004):
        """Until every bucket's progress has passed the position. One bucket of each share is asked meanwhile."""
        until = time.monotonic() + seconds
        some = [("HGET", "bk:{%d}" % (17 * i), "progress") for i in range(16)]
        every = [("HGET", "bk:{%d}" % b, "progress") for b in range(BUCKETS)]
        wanted = position.encode()
        for questions in (some, every):
            while min(p or b"" for p in self.redis.many(questions)) < wanted:
                if time.monotonic() > until:
                    raise Failed("fanout did not get to %s in %d s" % (position, seconds))
                time.sleep(pause)

    def wait_metric(self, test, seconds=120, port=None):
        until = time.monotonic() + seconds
        while True:
            try:
                if test(self.metrics(port)):
                    return
            except OSError:
                pass  # it is being started
            if time.monotonic() > until:
                raise Failed("fanout did not get to the state that the measurement needs")
            time.sleep(0.05)

    def add_fanout(self, name):
        """One more fanout beside the stack's; end_fanout() gives its shares back."""
        port = free_port()
        log = open(self.dir + "/%s.log" % name, "a", encoding="utf-8")
        p = subprocess.Popen(
            [self.bin + "/fanout", "--listen", "127.0.0.1:%d" % port, "--name", name, "--redis", "unix:" + self.socket_path,
             "--mongodb-uri", "mongodb://127.0.0.1:%s/feedmill?replicaSet=feedmill" % self.ports["mongod"]],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent, env=self.environment)
        log.close()
        p.port = port
        self.others.append(p)
        return p

    def end_fanout(self, p):
        end_process(p, 6)
        self.others.remove(p)

    # ---- processes ----

    def processes(self):
        """{name: [process ids]} of the stack's children and other fanouts."""
        out = {}
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                text = open(path, encoding="utf-8").read()
            except OSError:
                continue
            name = text[text.index("(") + 1:text.rindex(")")]
            pid, parent = int(text.split()[0]), int(text[text.rindex(")") + 2:].split()[1])
            if parent == self.process.pid or pid in [p.pid for p in self.others]:
                name = "redis" if name.startswith("redis") else name
                out.setdefault(name, []).append(pid)
        return out

    def run_ns(self, name):
        """Nanoseconds that the first thread of a process has run: of Redis, all that serves commands."""
        with open("/proc/%d/schedstat" % self.processes()[name][0], encoding="utf-8") as f:
            return int(f.read().split()[0])

    def cpu(self):
        """{name: CPU seconds so far}; Redis' ended children, which rewrite its log, apart."""
        out = {}
        for name, pids in self.processes().items():
            for pid in pids:
                text = open("/proc/%d/stat" % pid, encoding="utf-8").read()
                fields = text[text.rindex(")") + 2:].split()
                out[name] = out.get(name, 0) + sum(int(f) for f in fields[11:13]) / TICK
                if name == "redis":
                    out["redis' log"] = sum(int(f) for f in fields[13:15]) / TICK
        return out

    def memory(self, name, field="VmRSS"):
        """MiB of a process of that name: VmRSS now, VmHWM at most so far."""
        text = open("/proc/%d/status" % self.processes()[name][0], encoding="utf-8").read()
        return int(re.search(field + r":\s+(\d+) kB", text).group(1)) / 1024

    def restart_fanout(self, readers):
        """Ends the stack's fanout, which the stack starts again, and waits until it knows of so many active readers."""
        old = self.processes()["fanout"][0]
        os.kill(old, signal.SIGTERM)
        until = time.monotonic() + 30
        while self.processes().get("fanout", [old])[0] == old:
            if time.monotonic() > until:
                raise Failed("fanout was not started again")
            time.sleep(0.05)
        self.wait_metric(lambda m: float(m["feedmill_fanout_readers"]) >= readers)


def spent(before, after):
    return {k: after[k] - before.get(k, 0) for k in after}


def histogram_quantile(before, after, name, q):
    """Of a histogram of /metrics between two looks: the upper bound of the step in which the quantile lies, seconds.

    name is without labels or with them in braces. None without observations.
    """
    base, _, labels = name.partition("{")
    labels = labels.rstrip("}")
    steps = []
    for key, value in after.items():
        m = re.fullmatch(re.escape(base) + r'_bucket\{(.*?),?le="([^"]+)"\}', key)
        if m and m.group(1).rstrip(",") == labels:
            bound = float("inf") if m.group(2) == "+Inf" else float(m.group(2))
            steps.append((bound, float(value) - float(before.get(key, 0))))
    steps.sort()
    if not steps or steps[-1][1] == 0:
        return None
    return steps[bisect.bisect_left([n for _, n in steps], q * steps[-1][1])][0]
