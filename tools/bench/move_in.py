#!/usr/bin/env python3
"""make bench-move-in: millions of items and follows through the API into an empty stack, interrupted once by Ctrl-C and once by kill -9.

The graph is made by a seed: publishers, topics and readers by power laws, one topic that every reader follows, one reader who follows
10,000 publishers. Afterwards everything is counted in MongoDB, pages of some readers are compared with the model, and an item of the
topic that everybody follows is delivered. All files are streams; what runs here keeps to a few hundred MiB whatever the sizes.
ITEMS, EDGES, SEED, CACHE_GB (mongod's), CONNECTIONS by environment; TMPDIR says where (2 GB a million items and four million edges).
"""
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import report
import world

ITEMS = int(os.environ.get("ITEMS") or 200000)
EDGES = int(os.environ.get("EDGES") or 800000)
SEED = int(os.environ.get("SEED") or 1)
CONNECTIONS = int(os.environ.get("CONNECTIONS") or 4)
OUT = "build/bench-move-in.json"
COMMAND = "make bench-move-in ITEMS=%d EDGES=%d" % (ITEMS, EDGES)
PUBLISHERS, TOPICS = max(200, ITEMS // 100), 1000
MASK = (1 << 64) - 1
GREAT, GREAT_FOLLOWS = "reader-of-all", 10000
SAMPLE, SAMPLE_ITEMS, ACTIVE = 20, 200, 2000
FIRST_DAY = 1_600_000_000_000  # ms since 1970
WORDS = "the feed shows what was published by those whom a reader follows in the order of time and without holes".split()
TEXTS = [" ".join(WORDS[(i * 7 + j * (i + 3)) % len(WORDS)] for j in range(60)) for i in range(50)]


def mix(n):
    """A number below 2^64 that looks random; the same for the same n and seed."""
    n = (n * 0x9E3779B97F4A7C15 + SEED * 0xBF58476D1CE4E5B9) & MASK
    n = ((n ^ n >> 31) * 0x94D049BB133111EB) & MASK
    return n ^ n >> 29


def unit(n):
    return mix(n) / 2.0**64


def publisher_of(i):
    return int(PUBLISHERS * unit(2 * i) ** 3)


def write_items(path):
    step = 31_536_000_000 * 3 // ITEMS or 1
    with open(path, "w", encoding="utf-8") as f:
        for i in range(ITEMS):
            ms = FIRST_DAY + i * step
            when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000))
            f.write('{"publisher":"p%d","external_id":"x%d","title":"Item %d","body":"%s","topics":["t%d"],"published_at":"%s.%03dZ"}\n' % (
                publisher_of(i), i, i, TEXTS[i % 50], int(TOPICS * unit(2 * i + 1) ** 2), when, ms % 1000))


def follows_of(user):
    """The numbers of the publishers that a reader follows; a few follow very many."""
    base = (1 << 40) + user * 2048
    k = min(1000, int(9.5 / max(unit(base), 1e-9) ** 0.5))
    return {int(PUBLISHERS * unit(base + 1 + j) ** 3) for j in range(k)}


def write_follows(path):
    """Answers (readers, edges)."""
    users, edges = 0, 0
    with open(path, "w", encoding="utf-8") as f:
        for p in range(min(GREAT_FOLLOWS, PUBLISHERS)):
            f.write('{"user":"%s","kind":"publisher","name":"p%d"}\n' % (GREAT, p))
            edges += 1
        while edges < EDGES:
            f.write('{"user":"u%d","kind":"topic","name":"everybody"}\n' % users)
            edges += 1
            for p in follows_of(users):
                f.write('{"user":"u%d","kind":"publisher","name":"p%d"}\n' % (users, p))
                edges += 1
            users += 1
    return users, edges


class Mongo:
    """As much of a client as is needed to count: OP_MSG with commands of numbers, strings, documents and lists."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", int(port)), timeout=900)

    def encode(self, value):
        if isinstance(value, str):
            data = value.encode()
            return b"\x02", struct.pack("<i", len(data) + 1) + data + b"\0"
        if isinstance(value, int):
            return b"\x12", struct.pack("<q", value)
        pairs = value.items() if isinstance(value, dict) else ((str(i), v) for i, v in enumerate(value))
        body = b"".join(kind + name.encode() + b"\0" + data for name, v in pairs for kind, data in [self.encode(v)])
        return b"\x03" if isinstance(value, dict) else b"\x04", struct.pack("<i", len(body) + 5) + body + b"\0"

    def command(self, document):
        body = struct.pack("<i", 0) + b"\0" + self.encode(dict(document, **{"$db": "feedmill"}))[1]
        self.socket.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body)
        data = b""
        while len(data) < 4 or len(data) < struct.unpack_from("<i", data)[0]:
            more = self.socket.recv(65536)
            if not more:
                raise world.Failed("mongod ended the connection")
            data += more
        return data

    def sum(self, collection, field=None):
        """How many documents there are, or the sum of a field: by looking at each, not by what the collection says of itself."""
        one = "$" + field if field else 1
        stages = [{"$group": {"_id": "all", "total": {"$sum": one}}}]
        answer = self.command({"aggregate": collection, "pipeline": stages, "cursor": {}})
        at = answer.find(b"total\0")
        if at < 0:
            raise world.Failed("mongod: " + repr(answer[:400]))
        kind = answer[at - 1]
        form = {0x10: "<i", 0x12: "<q", 0x01: "<d"}[kind]
        return int(struct.unpack_from(form, answer, at + 6)[0])


class Bench:
    def __init__(self):
        self.report = report.Report()
        self.stack = None
        self.peaks = {}  # process: MiB at most
        self.marks = []  # (time, lines of items, lines of follows) acknowledged
        self.began = 0.0

    def look(self, tool, journal):
        """Now and then: memory of all, and what the journal says; answers the lines of items and follows."""
        for name in self.stack.processes():
            self.peaks[name] = max(self.peaks.get(name, 0), self.stack.memory(name))
        try:
            with open("/proc/%d/status" % tool.pid, encoding="utf-8") as f:
                rss = [int(x.split()[1]) / 1024 for x in f if x.startswith("VmRSS")]
            self.peaks["move_in.py"] = max(self.peaks.get("move_in.py", 0), *rss, 0)
        except OSError:
            pass
        try:
            with open(journal, encoding="utf-8") as f:
                lines = [x["line"] for x in json.load(f)["files"]]
        except OSError:
            lines = [0, 0]
        self.marks.append((time.monotonic(), *lines))
        return lines

    def run_tool(self, items, follows, stop_at, how):
        """Runs move_in.py until (items, follows) lines are acknowledged, then sends the signal; None: until it ends."""
        journal = self.stack.dir + "/journal"
        command = [sys.executable, "tools/move_in.py", "--url", "http://127.0.0.1:%d" % self.stack.port, "--key-file",
                   self.stack.data + "/admin.key", "--items", items, "--follows", follows, "--journal", journal,
                   "--connections", str(CONNECTIONS)]
        cpu = os.times()
        tool = subprocess.Popen(command, preexec_fn=world.end_with_parent)
        while tool.poll() is None:
            lines = self.look(tool, journal)
            if stop_at and lines[0] >= stop_at[0] and lines[1] >= stop_at[1]:
                tool.send_signal(how)
                stop_at = None
            try:
                tool.wait(0.2)
            except subprocess.TimeoutExpired:
                pass
        self.look(tool, journal)
        spent = os.times()
        self.tool_cpu = getattr(self, "tool_cpu", 0) + spent[2] + spent[3] - cpu[2] - cpu[3]
        return tool.returncode

    def move_in(self):
        items, follows = self.stack.dir + "/items.ndjson", self.stack.dir + "/follows.ndjson"
        self.report.title("making %d items and %d follows" % (ITEMS, EDGES))
        write_items(items)
        self.users, self.edges = write_follows(follows)
        self.report.note("%d publishers, %d readers, %d follows" % (PUBLISHERS, self.users + 1, self.edges))
        self.report.title("moving in")
        self.began = time.monotonic()
        cpu = self.stack.cpu()
        for stop_at, how, want in (((ITEMS // 4, 0), signal.SIGINT, 130), ((ITEMS, self.edges // 4), signal.SIGKILL, -signal.SIGKILL),
                                   (None, None, 0)):
            status = self.run_tool(items, follows, stop_at, how)
            if status != want:
                raise world.Failed("move_in.py ended with %d instead of %d" % (status, want))
        spent = world.spent(cpu, self.stack.cpu())
        half = next(t for t, i, _ in self.marks if i >= ITEMS)
        end = next(t for t, _, e in self.marks if e >= self.edges)
        self.report.row("items moved in, interruption included", "items/s", COMMAND, [ITEMS / (half - self.began)])
        self.report.row("follows moved in, kill -9 included", "edges/s", COMMAND, [self.edges / (end - half)])
        self.report.row("the tool's processor time, of one core", "%", COMMAND, [100 * self.tool_cpu / (end - self.began)])
        for name in sorted(spent):
            self.report.note("processor time of %s: %.0f s" % (name, spent[name]))
        os.remove(items)
        os.remove(follows)

    # ---- is it all there ----

    def count(self):
        self.report.title("counted in MongoDB")
        mongo = Mongo(self.stack.ports["mongod"])
        for what, found, wanted in (("items", mongo.sum("items"), ITEMS), ("follows", mongo.sum("follows"), self.edges),
                                    ("readers", mongo.sum("users"), self.users + 1),
                                    ("follows by the readers' documents", mongo.sum("users", "follows"), self.edges),
                                    ("revisions of items", mongo.sum("items", "revision"), ITEMS)):
            self.report.note("%s: %d of %d" % (what, found, wanted))
            if found != wanted:
                raise world.Failed("%s: %d and not %d" % (what, found, wanted))

    def page(self, user, query):
        began = time.monotonic()
        _, data = self.stack.request("GET", "/v1/users/%s/feed?limit=100&fields=summary%s" % (user, query))
        page = json.loads(data)
        if page["state"] != "complete":
            raise world.Failed("a page of %s is %s: %s" % (user, page["state"], page["reason"]))
        return page, 1000 * (time.monotonic() - began)

    def compare_pages(self):
        """The newest items of some readers, page by page, against what the seed says."""
        sample = {"u%d" % (k * self.users // SAMPLE): follows_of(k * self.users // SAMPLE) for k in range(SAMPLE)}
        sample[GREAT] = set(range(min(GREAT_FOLLOWS, PUBLISHERS)))
        wanted, open_readers, by_publisher = {u: [] for u in sample}, set(sample), {}
        for u, follows in sample.items():
            for p in follows:
                by_publisher.setdefault(p, []).append(u)
        for i in range(ITEMS - 1, -1, -1):
            for u in by_publisher.get(publisher_of(i), ()):
                if len(wanted[u]) < SAMPLE_ITEMS:
                    wanted[u].append("x%d" % i)
                    if len(wanted[u]) == SAMPLE_ITEMS:
                        open_readers.discard(u)
            if not open_readers:
                break
        first, later = {}, {}
        for u in sample:
            got, cursor = [], ""
            while len(got) < len(wanted[u]):
                page, ms = self.page(u, cursor)
                (later if cursor else first).setdefault(u, []).append(ms)
                got += [x["external_id"] for x in page["items"]]
                if not page["next"]:
                    break
                cursor = "&cursor=" + page["next"]
            if got[:len(wanted[u])] != wanted[u]:
                raise world.Failed("the feed of %s is not what was moved in" % u)
        self.report.note("pages of %d readers are what they should be" % len(sample))
        self.report.row("first page of the reader of %d publishers (rebuild)" % len(sample[GREAT]), "ms", COMMAND, first[GREAT])
        self.report.row("his later pages, from the store", "ms", COMMAND, later.get(GREAT, []))
        self.report.row("first pages of the others (rebuild)", "ms", COMMAND, [x for u in first if u != GREAT for x in first[u]])

    # ---- the topic that everybody follows ----

    def deliver(self):
        self.report.title("a topic of %d followers" % self.users)
        until = time.monotonic() + 600
        while json.loads(self.stack.request("GET", "/v1/topics/everybody")[1])["followers"] != self.users:
            if time.monotonic() > until:
                raise world.Failed("the topic's followers are not counted")
            time.sleep(1)
        step = max(1, self.users // ACTIVE)
        readers = ["u%d" % u for u in range(0, self.users, step)]
        for u in readers:
            self.page(u, "")
        before = self.stack.memory("fanout")
        times = []
        for n in range(5):
            item = {"publisher": "p0", "external_id": "for-all-%d" % n, "title": "For all", "body": "b", "topics": ["everybody"]}
            began = time.monotonic()
            self.stack.wait_applied(self.stack.lines("/v1/items/bulk", [json.dumps(item)]), 900)
            times.append(time.monotonic() - began)
        for u in readers[:50]:
            page, _ = self.page(u, "")
            if [x["external_id"] for x in page["items"][:5]] != ["for-all-%d" % n for n in range(4, -1, -1)]:
                raise world.Failed("%s did not get the items of the topic" % u)
        self.report.row("first item to all, %d of them active" % len(readers), "s", COMMAND, times[:1])
        self.report.row("later items to all", "s", COMMAND, times[1:])
        self.report.row("fanout's memory before the first", "MiB", COMMAND, [before])
        self.report.row("fanout's memory at most, all included", "MiB", COMMAND, [self.stack.memory("fanout", "VmHWM")])

    def run(self):
        environment = {"FEEDMILL_PULL_THRESHOLD": "0"}  # push, however many they are: the harder case
        if os.environ.get("CACHE_GB"):
            environment["FEEDMILL_MONGOD_CACHE_GB"] = os.environ["CACHE_GB"]
        self.stack = world.Stack(world.BINARIES, environment)
        self.move_in()
        self.count()
        self.compare_pages()
        self.deliver()
        self.report.title("memory at most")
        for name in sorted(self.peaks):
            self.report.row("resident memory of " + name, "MiB", COMMAND, [self.peaks[name]])


def main():
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    b = Bench()
    complete, rc = False, 0
    try:
        b.run()
        complete = True
    except KeyboardInterrupt:
        print("\ninterrupted: what follows is what was measured until now")
        rc = 130
    except world.Failed as problem:
        print("\nFAILED: %s" % problem)
        rc = 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if b.stack:
            if rc == 1:
                print("\n".join(b.stack.story()))
            b.stack.end()
    b.report.write(OUT, complete)
    return rc


if __name__ == "__main__":
    sys.exit(main())
