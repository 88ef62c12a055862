#!/usr/bin/env python3
"""make bench-pages: what a feed page costs, against what this machine can do at all, and how long readers wait for one. Each
figure is from a real run on this machine, with real processes; nothing else should run on it meanwhile.

  A  warm pages a second, against nginx with the same bytes and redis-benchmark's ZRANGE; and fields=ids
  B  gzip and 304, against plain pages
  C  the first page after a rebuild, for readers who follow 200
  D  an open loop: the 99th percentile at half of the maximum load, and what is left at twice of it
  E  page 100 against page 2, for readers who follow 2,000
  F  feed-api's memory when its content cache is full

100,000 items with bodies of about 1 KB of text, 5,000 publishers, 2,000 readers who each follow 50 of them by chance, 20 items
a page, an API key of a service; nothing caches whole pages. Everything that is compared takes turns within a round.
Environment (or flag): ROUNDS=5, QUICK=1 (small sizes: for trying this program), ONLY=A,B. Ctrl-C ends it within seconds; what
was measured by then is in the table and in the JSON.
"""
import http.client
import json
import os
import random
import statistics
import sys
import time
from gzip import decompress as unzip

sys.dont_write_bytecode = True  # the sources' folder stays as it is

import harness
import loads
import world
from prose import Prose
from report import quantile

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
ALL = "ABCDEF"
OUT = "build/bench-pages.json"
PAGE = "/v1/users/%s/feed?limit=20"
CACHE_MIB = 64
BODY = 1000            # bytes, about
FOLLOWS = 50
REBUILT_FOLLOWS, DEEP_FOLLOWS, DEEP = 200, 2000, 100
HALF_CONNECTIONS, OVER_CONNECTIONS = 256, 800
# Limits of rates are switched on, and stand where one client on loopback does not meet them.
ENVIRONMENT = dict({"FEEDMILL_CONTENT_CACHE_BYTES": "%dm" % CACHE_MIB, "FEEDMILL_PUBLISH_BACKLOG_MAX": "0"},
                   **{"FEEDMILL_RATE_" + x: "1000000" for x in ("KEY", "USER", "ADDRESS")})


def feed_state(data):
    return json.loads(data)["state"]


def items_of(data):
    return json.loads(data)["items"]


class Bench(harness.Bench):
    def __init__(self, o):
        super().__init__(o)
        self.values = {}  # row: one value a round
        self.used = {}    # row: [({process: CPU seconds}, seconds, requests)]
        self.nginx = None
        self.seed = 0

    def add(self, row, value):
        self.values.setdefault(row, []).append(value)

    def ratio(self, a, b):
        return [x / y for x, y in zip(self.values.get(a, []), self.values.get(b, [])) if y]

    # ---- the world ----

    def begin(self):
        n_items, n_publishers, n_readers = self.size((100000, 5000, 2000), (20000, 2000, 500))
        self.report.title("%d items of about %d bytes, %d publishers, %d readers who follow %d" % (
            n_items, BODY, n_publishers, n_readers, FOLLOWS))
        began, chance = time.monotonic(), random.Random(6)
        self.stack = s = world.Stack(world.BINARIES, ENVIRONMENT)
        publishers = ["publisher-%04d" % i for i in range(n_publishers)]
        self.publish(publishers, n_items, chance)
        self.readers = ["reader-%04d" % i for i in range(n_readers)]
        self.returning = ["returning-%03d" % i for i in range(self.size(200, 40))] if self.wants("C") else []
        self.deep = ["deep-%d" % i for i in range(self.size(5, 2))] if self.wants("E") else []
        kinds = ((self.readers, FOLLOWS), (self.returning, REBUILT_FOLLOWS), (self.deep, DEEP_FOLLOWS))
        s.wait_applied(s.follow((u, p) for users, n in kinds for u in users for p in chance.sample(publishers, min(n, n_publishers))))
        s.read_pages(self.readers, "limit=20")
        self.key = json.loads(s.request("POST", "/v1/keys", json.dumps({"role": "service"}))[1])["key"]
        self.publishers = publishers
        self.targets = loads.write_targets(s.dir + "/targets", [PAGE % u for u in self.readers])
        self.targets_ids = loads.write_targets(s.dir + "/targets-ids", [PAGE % u + "&fields=ids" for u in self.readers])
        self.pages = self.fetch_pages()
        self.report.note("made in %.0f s; a page has %.0f bytes" % (time.monotonic() - began,
                                                                  statistics.mean(len(d) for d in self.pages.values())))

    def publish(self, publishers, n, chance):
        """The items of a month, by publishers in no order."""
        prose, began = Prose(6), time.time() - 30 * 86400
        for first in range(0, n, 1000):
            self.stack.lines("/v1/items/bulk", [
                json.dumps({"publisher": chance.choice(publishers), "external_id": "item-%d" % i, "title": prose.title(),
                            "body": prose.body(BODY), "url": "https://example.org/items/%d" % i, "lang": "en",
                            "published_at": world.rfc3339(began + i * 30 * 86400 / n)})
                for i in range(first, min(n, first + 1000))])

    def ask(self, path, headers=None):
        """(status, headers, body, ms) as the service; of a connection of its own that is kept."""
        c = self.connection()
        began = time.monotonic()
        c.request("GET", path, headers=dict(headers or {}, Authorization="Bearer " + self.key))
        answer = c.getresponse()
        data = answer.read()
        self.asked = time.monotonic()
        return answer.status, answer.headers, data, 1000 * (self.asked - began)

    def connection(self):
        if getattr(self, "own", None) is None:
            self.own, self.asked = http.client.HTTPConnection("127.0.0.1", self.stack.port, timeout=30), 0
        if time.monotonic() - self.asked > 5:
            self.own.close()
            self.own.connect()
            self.own.sock.setsockopt(world.socket.IPPROTO_TCP, world.socket.TCP_NODELAY, 1)
        return self.own

    def page(self, path):
        status, _, data, ms = self.ask(path)
        if status != 200 or feed_state(data) != "complete":
            raise world.Failed("%s: %d %s" % (path, status, data[-300:].decode()))
        return data, ms

    def fetch_pages(self):
        """{path: bytes} of all readers' first pages."""
        out = {}
        for u in self.readers:
            data, _ = self.page(PAGE % u)
            if len(json.loads(data)["items"]) != 20:
                raise world.Failed("the page of %s has no 20 items" % u)
            out["/v1/users/%s/feed" % u] = data
        return out

    def api_metrics(self):
        text = self.stack.request("GET", "/metrics")[1].decode()
        return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")}

    # ---- A and B: what wrk gets ----

    def wrk(self, row, path, header="", port=None, pids=()):
        """One turn of a row: its rate, processor time, and what feed-api counted meanwhile."""
        before, clock = self.api_metrics(), loads.Clock(self.stack, pids)
        got = loads.wrk(port or self.stack.port, path, self.key, self.size(5, 2), header)
        cpu, seconds = clock.stop()
        after = self.api_metrics()
        self.used.setdefault(row, []).append((cpu, seconds, got["requests"]))
        self.add(row, got["rate"])
        self.add(row + " p99", got["p99"])
        return got, {k: v - before.get(k, 0) for k, v in after.items()}

    def begin_peers(self):
        self.nginx = loads.Nginx(self.stack, self.pages)
        r = self.stack.redis
        r.bulk(("COPY", world.timeline_key(u), "bench:%012d" % i, "REPLACE") for i, u in enumerate(self.readers))
        if r("ZCARD", "bench:%012d" % 0) < 20:
            raise world.Failed("a timeline has no 20 entries")
        loads.wrk(self.nginx.port, self.targets, self.key, 1)

    def turn_plain(self):
        _, m = self.wrk("plain", self.targets)
        hits, misses = (m.get('feedmill_content_total{result="%s"}' % x, 0) for x in ("hit", "miss"))
        if hits + misses:
            self.add("hits", 100 * hits / (hits + misses))
        pages = {k: v for k, v in m.items() if k.startswith("feedmill_page_source_total") and v > 0}
        self.add("warm", 100 * pages.get('feedmill_page_source_total{source="timeline"}', 0) / max(1, sum(pages.values())))

    def turn_a(self):
        self.wrk("nginx", self.targets, port=self.nginx.port, pids=self.nginx.pids())
        requests = self.size(1000000, 300000)
        clock = loads.Clock(self.stack)
        self.add("zrange", loads.zrange(self.stack, len(self.readers), requests))
        self.used.setdefault("zrange", []).append((*clock.stop(), requests))
        self.wrk("ids", self.targets_ids)

    def begin_encodings(self):
        """What of gzip and ETag is there: a server that has neither is not measured at it."""
        path, gzip = PAGE % self.readers[0], {"Accept-Encoding": "gzip"}
        self.gzip = self.ask(path, gzip)[1].get("Content-Encoding") == "gzip"
        if not self.gzip:
            self.report.note("B gzip is SKIPPED: an answer to Accept-Encoding: gzip has no Content-Encoding")
        elif items_of(unzip(self.ask(path, gzip)[2])) != items_of(self.page(path)[0]):
            raise world.Failed("a gzipped page holds other items than a plain one")
        self.etags = self.ask(path)[1].get("ETag") is not None
        if self.etags:
            self.write_conditions()
            self.etags = self.ask(path, {"If-None-Match": self.ask(path)[1]["ETag"]})[0] == 304
        if not self.etags:
            self.report.note("B 304 is SKIPPED: there is no ETag, or it is not answered 304 when sent back")

    def write_conditions(self):
        lines = []
        for u in self.readers:
            path = PAGE % u
            lines.append("%s\tIf-None-Match: %s" % (path, self.ask(path)[1]["ETag"]))
        self.targets_etags = loads.write_targets(self.stack.dir + "/targets-etags", lines)

    def turn_b(self):
        if self.gzip:
            self.wrk("gzip", self.targets, "Accept-Encoding: gzip")
            some = [PAGE % u for u in self.readers[:20]]
            small, large = (sum(len(self.ask(p, h)[2]) for p in some) for h in ({"Accept-Encoding": "gzip"}, None))
            self.add("gzip bytes", 100 * small / large)
        if self.etags:
            self.write_conditions()
            _, m = self.wrk("304", self.targets_etags)
            not_modified, all_of_them = (sum(v for k, v in m.items() if k.startswith("feedmill_http_responses_total") and x in k)
                                         for x in ('"3xx"', ""))
            self.add("304 share", 100 * not_modified / max(1, all_of_them))

    # ---- C: rebuilds ----

    def turn_c(self):
        self.stack.redis.bulk(("DEL", world.timeline_key(u, k)) for u in self.returning for k in ("tl", "pf"))
        clock = loads.Clock(self.stack)
        times = [self.page(PAGE % u)[1] for u in self.returning]
        self.used.setdefault("rebuild", []).append((*clock.stop(), len(times)))
        self.add("rebuild p50", quantile(times, 0.5))
        self.add("rebuild p99", quantile(times, 0.99))

    # ---- D: the open loop ----

    def open_load(self, row, rate, connections):
        self.seed += 1
        clock = loads.Clock(self.stack)
        got = loads.open_load(self.stack.port, self.targets, self.key, rate, self.size(2, 1), self.size(6, 3), connections, self.seed)
        self.used.setdefault(row, []).append((*clock.stop(), max(1, got["good"])))
        for k, v in got.items():
            self.add(row + " " + k, v)
        self.add(row + " rate", rate)
        return got

    def turn_d(self):
        maximum = self.values["plain"][-1]
        got = self.open_load("half", maximum / 2, HALF_CONNECTIONS)
        if got["due"] and got["good"] < 0.999 * got["due"]:
            raise world.Failed("at half of the maximum load not all was answered: %s" % got)
        got = self.open_load("over", maximum * 2, OVER_CONNECTIONS)
        self.add("over share", got["goodput"] / maximum)
        self.add("over p99 against maximum", got["p99_ms"] / self.values["plain p99"][-1])
        self.add("over p99 against half", got["p99_ms"] / self.values["half p99_ms"][-1])
        self.wait_calm()

    def wait_calm(self):
        """What was refused has its effect for a while; the next turn begins when a page is complete again."""
        until = time.monotonic() + 20
        while True:
            status, _, data, _ = self.ask(PAGE % self.readers[0])
            if status == 200 and feed_state(data) == "complete":
                return
            if time.monotonic() > until:
                raise world.Failed("20 s after the overload a page is still %d" % status)
            time.sleep(0.1)

    # ---- E: deep pages ----

    def begin_deep(self):
        """Each deep reader's feed once to page DEEP; the targets of the pages that are compared."""
        self.deep_targets, first = {}, {}
        for u in self.deep:
            path, began = PAGE % u, time.monotonic()
            for number in range(1, DEEP + 1):
                data, ms = self.page(path)
                first.setdefault(number, []).append(ms)
                if number in (2, 10, DEEP):
                    self.deep_targets.setdefault(number, []).append(path)
                cursor = json.loads(data)["next"]
                if not cursor and number < DEEP:
                    raise world.Failed("the feed of %s ends with page %d" % (u, number))
                path = "%s&cursor=%s" % (PAGE % u, cursor)
            self.report.note("E pages 1 to %d of %s, one after the other: %.1f s" % (DEEP, u, time.monotonic() - began))
        for number in (1, 2, 10, DEEP):
            self.report.row("E page %d when first read" % number, "ms", "GET .../feed?limit=20, one connection", first[number])

    def turn_e(self):
        times = {number: [] for number in self.deep_targets}
        for _ in range(self.size(10, 4)):
            for number, targets in self.deep_targets.items():
                times[number] += [self.page(t)[1] for t in targets]
        for number, ms in times.items():
            self.add("page %d" % number, statistics.median(ms))

    # ---- F: memory ----

    def job_f(self):
        """Asks for all items there are, until the content cache is full or has seen them all."""
        s, r = self.stack, self.report
        r.row("F feed-api's memory after the rounds", "MiB", "VmRSS of /proc/<pid>/status", [s.memory("feed-api")])
        path = loads.write_targets(s.dir + "/targets-all", ["/v1/publishers/%s/items?limit=20" % p for p in self.publishers])
        asked = 0
        while asked < 2 * len(self.publishers):
            asked += loads.wrk(s.port, path, self.key, 1)["requests"]
        m = self.api_metrics()
        r.row("F content cache, after pages of all publishers", "MiB", "feedmill_content_bytes of /metrics",
              [m["feedmill_content_bytes"] / 1048576], at_most=CACHE_MIB)
        r.note("F items kept: %.0f, dropped: %.0f" % (m["feedmill_content_entries"], m["feedmill_content_evicted_total"]))
        r.row("F feed-api's memory at most, with a cache of %d MiB" % CACHE_MIB, "MiB", "VmHWM of /proc/<pid>/status",
              [s.memory("feed-api", "VmHWM")], at_most=CACHE_MIB + 64)

    # ---- what came of it ----

    def costs(self, row, names):
        """us of processor time of one request, each round, of these processes together."""
        return [1e6 * sum(cpu.get(x, 0) for x in names) / n for cpu, _, n in self.used.get(row, [])]

    def tell_limit_by_cost(self):
        """What the ratio would be if each ran alone with all cores busy; Redis has one thread."""
        cores = os.cpu_count()
        page = self.costs("plain", ("feed-api", "redis", "load"))
        nginx, zrange = self.costs("nginx", ("nginx", "load")), self.costs("zrange", ("redis",))
        self.report.row("A pages against the combined limit, by processor time", "ratio",
                        "(nginx + wrk) / %d + Redis' ZRANGE against (feed-api + Redis + wrk) / %d; /proc/<pid>/stat" % (cores, cores),
                        [(n / cores + z) / (p / cores) for p, n, z in zip(page, nginx, zrange)])

    def tell_cpu(self):
        for row, turns in self.used.items():
            seconds, requests = sum(t for _, t, _ in turns), sum(n for _, _, n in turns)
            totals = {}
            for cpu, _, _ in turns:
                for name, value in cpu.items():
                    totals[name] = totals.get(name, 0) + value
            self.report.note("processor, %s: " % row + ", ".join(
                "%s %.2f cores %.1f us" % (n, v / seconds, 1e6 * v / requests)
                for n, v in sorted(totals.items(), key=lambda x: -x[1]) if v / seconds >= 0.005) + " (us: of one request)")

    def tell_wrk(self):
        r, v = self.report, lambda x: self.values.get(x, [])
        plain = loads.wrk_text("readers")
        r.row("A pages of 20 items of 1 KB, warm", "pages/s", plain, v("plain"))
        r.row("A a page at that load, 99th percentile", "ms", plain, v("plain p99"))
        r.row("A items found in the content cache", "%", "feedmill_content_total of /metrics", v("hits"))
        r.row("A pages from the timeline alone", "%", "feedmill_page_source_total of /metrics", v("warm"))
        r.row("A nginx, files of the same bytes", "req/s", plain + " (sendfile, open_file_cache, a worker a core)", v("nginx"))
        r.row("A ZRANGE 0 19 of copies of the same timelines", "calls/s",
              " ".join(loads.zrange_command("<socket>", len(self.readers), "<n>")), v("zrange"))
        limit = [1 / (1 / a + 1 / b) for a, b in zip(v("nginx"), v("zrange"))]
        r.row("A combined limit", "pages/s", "1 / (1/nginx + 1/ZRANGE)", limit)
        r.row("A pages against the combined limit", "ratio", "A, each round", [a / b for a, b in zip(v("plain"), limit)], at_least=0.5)
        r.row("A pages against the combined limit, target", "ratio", "A, each round", [a / b for a, b in zip(v("plain"), limit)], at_least=0.6)
        self.tell_limit_by_cost()
        r.row("A pages with fields=ids", "pages/s", loads.wrk_text("readers, fields=ids"), v("ids"))
        r.row("B gzipped pages", "pages/s", loads.wrk_text("readers", "Accept-Encoding: gzip"), v("gzip"))
        r.row("B gzipped against plain", "ratio", "B, each round", self.ratio("gzip", "plain"), at_least=0.9)
        r.row("B bytes of a gzipped page", "% of plain", "GET .../feed?limit=20, 20 readers", v("gzip bytes"))
        r.row("B pages that did not change (304)", "pages/s", loads.wrk_text("readers, each with If-None-Match"), v("304"))
        r.row("B of these answered 304", "%", "feedmill_http_responses_total of /metrics", v("304 share"), at_least=99)
        r.row("B 304 against plain", "ratio", "B, each round", self.ratio("304", "plain"), at_least=2)

    def tell_rest(self):
        r, v = self.report, lambda x: self.values.get(x, [])
        rebuild = "DEL tl:... pf:..., then GET .../feed?limit=20, one connection, %d readers" % len(self.returning)
        r.row("C first page after a rebuild, %d follows, median" % REBUILT_FOLLOWS, "ms", rebuild, v("rebuild p50"))
        r.row("C first page after a rebuild, 99th percentile", "ms", rebuild, v("rebuild p99"), at_most=50)
        half = loads.open_load_text("half of A", HALF_CONNECTIONS)
        r.row("D load of the following, half of A", "pages/s", half, v("half rate"))
        r.row("D page at half of the maximum load, median", "ms", half, v("half p50_ms"))
        r.row("D page at half of the maximum load, 99th percentile", "ms", half, v("half p99_ms"), at_most=10)
        r.row("D of it how late the client itself was, 99th percentile", "ms", half, v("half own_p99_ms"))
        over = loads.open_load_text("twice A", OVER_CONNECTIONS)
        r.row("D load of the following, twice A", "pages/s", over, v("over rate"))
        r.row("D goodput at twice the maximum load", "pages/s", over, v("over goodput"))
        r.row("D goodput at twice the maximum load, against A", "ratio", "D, each round", v("over share"), at_least=0.8)
        r.row("D accepted pages at twice the maximum load, 99th percentile", "ms", over, v("over p99_ms"))
        r.row("D the same against a page at the maximum load (A)", "ratio", "D, each round", v("over p99 against maximum"), at_most=3)
        r.row("D the same against a page at half of the maximum load", "ratio", "D, each round", v("over p99 against half"))
        r.row("D refused, 99th percentile", "ms", over, v("over refused_p99_ms"))
        r.row("D of these how late the client itself was, 99th percentile", "ms", over, v("over own_p99_ms"))
        for x in ("good", "refused", "failed", "lost", "unsent", "unanswered"):
            r.row("D of the requests at twice the maximum load: " + x, "%", over,
                  [100 * a / b for a, b in zip(v("over " + x), v("over due")) if b])
        deep = "GET .../feed?limit=20&cursor=..., one connection, in turns"
        for number in (2, 10, DEEP):
            r.row("E page %d, reader of %d publishers" % (number, DEEP_FOLLOWS), "ms", deep, v("page %d" % number))
        r.row("E page %d against page 2" % DEEP, "ratio", "E, each round", self.ratio("page %d" % DEEP, "page 2"), at_most=2)
        r.row("E page %d against page 10, below the timeline as well" % DEEP, "ratio", "E, each round",
              self.ratio("page %d" % DEEP, "page 10"))

    def round(self):
        if self.wants("ABD"):
            self.turn_plain()
        for letter, turn in (("A", self.turn_a), ("B", self.turn_b), ("C", self.turn_c), ("D", self.turn_d), ("E", self.turn_e)):
            if self.wants(letter):
                turn()

    def run(self):
        self.begin()
        with self.turns():
            if self.wants("A"):
                self.begin_peers()
            if self.wants("B"):
                self.begin_encodings()
            if self.wants("E"):
                self.begin_deep()
            if self.wants("ABD"):
                loads.wrk(self.stack.port, self.targets, self.key, self.size(3, 1))
            for k in range(self.rounds):
                self.report.title("round %d of %d" % (k + 1, self.rounds))
                self.round()
        self.report.title("figures")
        self.tell_wrk()
        self.tell_rest()
        if self.wants("F") and not self.trouble:
            self.job_f()
        self.report.title("where the processor's time went")
        self.tell_cpu()
        if self.trouble:
            raise self.trouble

    def end_world(self):
        if self.nginx:
            self.nginx.end()
            self.nginx = None
        super().end_world()


if __name__ == "__main__":
    sys.exit(harness.run(Bench(harness.options(__doc__, ALL)), OUT))
