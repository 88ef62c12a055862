#!/usr/bin/env python3
"""make bench-fanout: what a delivery costs, against plain Redis, and how soon an item is seen. Each figure is from a real run
on this machine, with real processes; nothing else should run on it meanwhile.

  A  deliveries a second into full timelines, against redis-benchmark's plain capped write on copies of them
  B  a publish to followers of whom 5 % are active, against all active
  C  publish to visible at half of the maximum load
  D  the time per follower, from 1,000 followers to a million, and fanout's memory
  E  two fanouts against one
  F  bytes an entry
  G  push against pull: what a publish and what a page costs
  H  publish to visible of a small publisher, idle and beside others that publish without pause

Everything that is compared takes turns within a round. Environment (or flag): ROUNDS=5, QUICK=1 (small sizes: for trying
this program), ONLY=A,B. Ctrl-C ends it within seconds; what was measured by then is in the table and in the JSON.
"""
import asyncio
import os
import statistics
import sys
import time

sys.dont_write_bytecode = True  # the sources' folder stays as it is

import harness
import peer
import pull
import visible
import world
from report import quantile

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
ALL = "ABCDEFGH"
OUT = "build/bench-fanout.json"
BULK = "POST /v1/items/bulk, until bk:{b} progress has passed its Feed-Position in all 256 buckets"
VISIBLE = "POST /v1/items at random times; GET /v1/users/{u}/feed?fields=ids without pause"
FULL = 10000  # readers, full timelines
SMALL_TIMELINES = 20


class Bench(harness.Bench):
    def __init__(self, o):
        super().__init__(o)
        self.tags = 0

    def tag(self):
        self.tags += 1
        return "t%d" % self.tags

    # ---- what the jobs measure with ----

    def deliver(self, publisher, items, expect):
        """Publishes in bulk; seconds until all is applied and progress says so, and CPU seconds by process."""
        counted, cpu, began = self.stack.deliveries(), self.stack.cpu(), time.monotonic()
        self.stack.wait_applied(self.stack.publish(publisher, self.tag(), items))
        seconds = time.monotonic() - began
        cpu = world.spent(cpu, self.stack.cpu())
        counted = self.stack.deliveries() - counted
        if abs(counted - items * expect) > items * expect * 0.001:
            raise world.Failed("%d deliveries were made, not %d: who is active is not as it should be" % (counted, items * expect))
        return seconds, cpu

    def note_cpu(self, what, cpus, seconds):
        """Where the time went: CPU seconds a second of wall time."""
        if not cpus:
            return
        total = sum(seconds)
        names = sorted({n for c in cpus for n in c})
        self.report.note("%s: cores used: " % what + ", ".join(
            "%s %.2f" % (n, sum(c.get(n, 0) for c in cpus) / total) for n in names if n != "ranker"))

    # ---- the first world: full timelines ----

    def begin_full(self):
        n = FULL
        self.n = n
        self.stack = world.Stack(world.BINARIES)
        s = self.stack
        self.full = ["full-%06d" % i for i in range(n)]
        self.sparse = ["sparse-%06d" % i for i in range(n)]
        self.thousand = self.full[:1000]
        edges = [(u, "full") for u in self.full] + [(u, "sparse") for u in self.sparse]
        s.follow(edges)
        s.wait_applied(s.follow((u, "thousand") for u in self.thousand))
        for publisher in ("full", "sparse", "thousand"):
            s.publish(publisher, "fill", 130)
        self.active = n // 20
        s.read_pages(self.full)
        s.read_pages(self.sparse[:self.active])
        s.wait_metric(lambda m: float(m["feedmill_fanout_readers"]) >= n + self.active)
        s.wait_applied(s.publish("sparse", "warm", 20))
        s.wait_applied(s.publish("thousand", "warm", 10))
        s.wait_applied(s.publish("full", "warm", 10))
        lengths = s.redis.many([("ZCARD", world.timeline_key(u)) for u in self.full])
        if min(lengths) < 121:
            raise world.Failed("a timeline has %d members, so it is not full" % min(lengths))

    def job_ab(self):
        n, active, items = self.n, self.active, self.size(300, 30)
        p = peer.Peer(self.stack, self.full[0])
        rates, ratios, ways, sparse_ratio, sparse_cpu, cpus, walls = [], [], {}, [], [], [], []
        costs, sparse_costs, redis_us, plain_us = [], [], [], []
        with self.turns():
            for _ in range(self.rounds):
                plain = p.measure(self.size(5, 2))
                used = self.stack.run_ns("redis")
                seconds, cpu = self.deliver("full", items, n)
                redis_us.append((self.stack.run_ns("redis") - used) / 1000 / (items * n))
                few_items = items * 5
                few, few_cpu = self.deliver("sparse", few_items, active)
                for way, (rate, _) in plain.items():
                    ways.setdefault(way, []).append(rate)
                plain_us.append(plain)
                rates.append(items * n / seconds)
                costs.append(1000 * seconds / items)
                sparse_costs.append(1000 * few / few_items)
                sparse_ratio.append(sparse_costs[-1] / costs[-1])
                work = [sum(c.get(x, 0) for x in ("fanout", "redis", "redis' log", "mongod")) for c in (cpu, few_cpu)]
                sparse_cpu.append(work[1] / few_items / (work[0] / items))
                cpus.append(cpu)
                walls.append(seconds)
        if not self.trouble:
            p.remove()
        r = self.report
        # The way that is best by its median; the best of each round would be the luckiest.
        best = max(ways, key=lambda w: statistics.median(ways[w])) if ways else None
        plain_us = [ways_of_round[best][1] for ways_of_round in plain_us]
        ratios = [a / b for a, b in zip(rates, ways.get(best, []))]
        if self.wants("A"):
            for (way, c), values in ways.items():
                r.row("A plain capped write, %s, %d connection%s, -P %d" % (way, c, "s" if c > 1 else "", peer.DEEP), "writes/s",
                      "redis-benchmark, 1 / (1/ZADD + 1/ZREMRANGEBYRANK)", values)
            for c in p.commands() if ways else []:
                r.note(c)
            r.row("A deliveries into %d full timelines, everything included" % n, "deliveries/s",
                  "%d items by %s" % (items, BULK), rates)
            r.row("A against the best plain capped write", "ratio", "A", ratios, at_least=1.3)
            command = "/proc/<pid>/schedstat: Redis' main thread"
            r.row("A Redis for one plain capped write, the best", "us", command, plain_us)
            r.row("A Redis for one delivery", "us", command, redis_us)
            r.row("A Redis: a plain capped write against a delivery", "ratio", command, [a / b for a, b in zip(plain_us, redis_us)])
            self.note_cpu("A", cpus, walls)
        if self.wants("B"):
            r.row("B a publish to %d followers, all active" % n, "ms", "%d items by %s" % (items, BULK), costs)
            r.row("B a publish to %d followers, %d active" % (n, active), "ms", "%d items by %s" % (items * 5, BULK), sparse_costs)
            r.row("B time, 5 % active against all", "ratio", "B", sparse_ratio, at_most=0.5)
            r.row("B CPU of fanout, Redis and MongoDB, 5 % active against all", "ratio", "/proc/<pid>/stat", sparse_cpu)

    def job_c(self):
        for publisher, readers, limit in (("thousand", self.thousand, 50), ("full", self.full, None)):
            n, items = len(readers), self.size(2000000, 200000) // len(readers)
            ordered = sorted(readers, key=world.bucket_of)
            probes = [ordered[0], ordered[-1]]  # buckets are served in order
            maximum, p50, p99, rates, answers, steps = [], [], [], [], [], []
            with self.turns():
                for k in range(self.rounds):
                    seconds, _ = self.deliver(publisher, items, n)
                    maximum.append(items / seconds)
                    rate = min(maximum[-1] / 2, 400)
                    before = self.stack.metrics()
                    seen, answered, _ = visible.watch(self.stack, publisher, probes, rate, self.size(12, 4), k)
                    steps.append(world.histogram_quantile(before, self.stack.metrics(), 'feedmill_fanout_apply_seconds{kind="item"}', 0.99))
                    rates.append(rate)
                    p50.append(quantile(seen, 0.5))
                    p99.append(quantile(seen, 0.99))
                    answers.append(quantile(answered, 0.5))
            r = self.report
            r.row("C maximum load, publishes to %d followers" % n, "publishes/s", "%d items by %s" % (items, BULK), maximum)
            r.row("C load of the following", "publishes/s", VISIBLE, rates)
            r.row("C publish to its answer, median", "ms", VISIBLE, answers)
            r.row("C publish to visible, %d followers, median" % n, "ms", VISIBLE, p50)
            r.row("C publish to visible, %d followers, 99th percentile" % n, "ms", VISIBLE, p99, at_most=limit)
            r.row("C fanout's own: read from the log to applied, 99th percentile is at most", "ms",
                  "feedmill_fanout_apply_seconds of /metrics", [1000 * s for s in steps if s])

    def job_f(self):
        values, r = [], self.stack.redis
        for u in self.full[:: max(1, self.n // 500)]:
            t, pf = world.timeline_key(u), world.timeline_key(u, "pf")
            values.append((r("MEMORY", "USAGE", t) + r("MEMORY", "USAGE", pf)) / (r("ZCARD", t) - 1))
        buckets = sum(r("MEMORY", "USAGE", "bk:{%d}" % b) or 0 for b in range(world.BUCKETS))
        lists = sum(r("MEMORY", "USAGE", "bn:{%d}" % b) or 0 for b in range(world.BUCKETS))
        share = (buckets + lists) / (self.n + self.active) + 2 * 8
        self.report.row("F a full timeline (tl and pf, names, expiry)", "B/entry", "MEMORY USAGE tl:... pf:...", values)
        self.report.row("F with its share of records, of lists, of the table of keys", "B/entry", "the same, bk:... and bn:... / readers",
                        [v + share / peer.ENTRIES for v in values], at_most=30)
        self.report.note("F the records of all %d buckets take %d bytes, the lists of new timelines %d: the same for any number "
                         "of readers" % (world.BUCKETS, buckets, lists))

    def job_e(self):
        n, items, s = self.n, self.size(200, 20), self.stack
        command = "%d items by %s" % (items, BULK)
        one, two, ratios, cpus, walls = [], [], [], [], []
        known = n + self.active

        def balanced(buckets):
            return lambda m: float(m["feedmill_fanout_buckets_owned"]) == buckets and float(m["feedmill_fanout_readers"]) > 0

        with self.turns():
            for _ in range(self.rounds):
                s.wait_applied(s.publish("full", self.tag(), 2))
                seconds, _ = self.deliver("full", items, n)
                one.append(items * n / seconds)
                other = s.add_fanout("fanout-2")
                for port in (s.ports["fanout"], other.port):
                    s.wait_metric(balanced(128), 60, port)
                s.wait_applied(s.publish("full", self.tag(), 2))
                seconds, cpu = self.deliver("full", items, n)
                two.append(items * n / seconds)
                cpus.append(cpu)
                walls.append(seconds)
                ratios.append(two[-1] / one[-1])
                s.end_fanout(other)
                s.wait_metric(lambda m: float(m["feedmill_fanout_buckets_owned"]) == 256 and
                              float(m["feedmill_fanout_readers"]) >= known, 60)
        r = self.report
        r.row("E deliveries into %d full timelines, one fanout" % n, "deliveries/s", command, one)
        r.row("E deliveries into %d full timelines, two fanouts" % n, "deliveries/s", command, two)
        r.row("E two fanouts against one, one Redis", "ratio", "E", ratios)
        self.note_cpu("E with two fanouts", cpus, walls)

    # ---- the second world: many followers, short timelines ----

    def begin_wide(self):
        sizes = self.size([1000, 10000, 100000, 1000000], [1000, 10000, 50000])
        if not self.wants("D"):
            sizes = sizes[:3]
        self.stack = world.Stack(world.BINARIES, {
            "FEEDMILL_TIMELINE_ENTRIES": str(SMALL_TIMELINES), "FEEDMILL_PULL_THRESHOLD": "0"})
        s, r = self.stack, self.report
        r.note("timelines of %d entries (--timeline-entries), so that a million of them fit; pull off; names of 13 bytes" % SMALL_TIMELINES)
        r.row("D fanout's memory at its start", "MiB", "VmRSS of /proc/<pid>/status", [s.memory("fanout")])
        began, edges, position = time.monotonic(), 0, None
        self.wide = {n: ["w%04d-%07d" % (n // 1000, i) for i in range(n)] for n in sizes}
        for n, users in self.wide.items():
            position = s.follow((u, "wide-%d" % n) for u in users)
            edges += n
            s.publish("wide-%d" % n, "fill", SMALL_TIMELINES + 10)
        small = ["small-%d" % i for i in range(10)]
        position = s.follow((u, "small") for u in small)
        s.publish("small", "fill", SMALL_TIMELINES + 10)
        self.small = small
        s.wait_applied(position, 600)
        r.row("D follows moved in, and known to fanout", "edges/s", "POST /v1/follows/bulk, 10,000 a request, one connection",
              [edges / (time.monotonic() - began)])
        s.read_pages([users[0] for users in self.wide.values()] + small)
        began = time.monotonic()
        for users in self.wide.values():
            s.copy_timelines(users)
        r.note("D one reader of each publisher read a page; the others' timelines are copies of his (COPY in Redis, %.0f s), and "
               "fanout was started again to find them" % (time.monotonic() - began))
        s.restart_fanout(edges)
        r.row("D fanout's memory, %d active readers known" % edges, "MiB", "VmRSS of /proc/<pid>/status", [s.memory("fanout")])

    def job_d(self):
        s, r = self.stack, self.report
        budget = self.size(1200000, 200000)
        # Up to five items go into a short timeline at once: a round has whole turns of that.
        items = {n: max(5, min(1000, budget // n // 5 * 5)) for n in self.wide}
        for n in self.wide:  # the lists of followers are made by the first publish
            began = time.monotonic()
            self.deliver("wide-%d" % n, 1, n)
            r.note("D the first publish to %d followers, whose list is then read from MongoDB: %.2f s" % (n, time.monotonic() - began))
            self.deliver("wide-%d" % n, 5, n)
            longest = max(s.redis.many([("ZCARD", world.timeline_key(u)) for u in self.wide[n][:1000]]))
            if longest > SMALL_TIMELINES + 7:
                raise world.Failed("a timeline of %d members is not short" % longest)
        each, rss, cpus, walls = {n: [] for n in self.wide}, [s.memory("fanout")], [], []
        with self.turns():
            for _ in range(self.rounds):
                for n in self.wide:
                    seconds, cpu = self.deliver("wide-%d" % n, items[n], n)
                    each[n].append(1e6 * seconds / items[n] / n)
                    if n == max(self.wide):
                        cpus.append(cpu)
                        walls.append(seconds)
                rss.append(s.memory("fanout"))
        reference = each[10000]
        for n in self.wide:
            r.row("D time per follower, %d followers" % n, "us", "%d items by %s" % (items[n], BULK), each[n])
        for n in self.wide:
            if n != 10000:
                r.row("D time per follower, %d against 10000 followers" % n, "ratio", "D", [a / b for a, b in zip(each[n], reference)],
                      at_most=1.6 if n == 1000 else 1.2)
        self.note_cpu("D with %d followers" % max(self.wide), cpus, walls)
        r.row("D fanout's memory while it delivers to them", "MiB", "VmRSS of /proc/<pid>/status, after each round", rss)
        r.row("D fanout's memory after the rounds against before", "ratio", "VmRSS", [rss[-1] / rss[0]], at_most=1.1)
        r.row("D fanout's memory at most", "MiB", "VmHWM of /proc/<pid>/status", [s.memory("fanout", "VmHWM")])
        lists = s.metrics()
        r.note("D lists of followers in fanout: %s, %.1f MiB, too large to be kept: %s" % (
            lists["feedmill_fanout_lists"], float(lists["feedmill_fanout_lists_bytes"]) / 1048576,
            lists["feedmill_fanout_lists_too_large_total"]))

    def job_h(self):
        s, seconds, rate = self.stack, self.size(10, 4), 50
        huge = sorted(self.wide)[2]
        kinds = ["idle", "huge", "without pause"]
        p50, p99, every = {k: [] for k in kinds}, {k: [] for k in kinds}, {k: [] for k in kinds}
        answered, after = {k: [] for k in kinds}, {k: [] for k in kinds}
        command = ["wrk", "-t1", "-c1", "-d%ds" % (seconds + 2), "-s", world.HERE + "/publish.lua", "http://127.0.0.1:%d" % s.port,
                   "--", s.key, "wide-1000"]

        async def without_pause(_):
            p = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL, preexec_fn=world.end_with_parent)
            try:
                await p.wait()
            finally:
                if p.returncode is None:
                    p.kill()
                    await p.wait()

        beside = {"idle": None, "huge": visible.keep_publishing("wide-%d" % huge, int(s.ports["fanout"])),
                  "without pause": without_pause}
        for publisher in ("small", "wide-1000", "wide-%d" % huge):  # their list of followers is read once, and then kept
            s.wait_applied(s.publish(publisher, "warm", 2))
        with self.turns():
            for k in range(self.rounds):
                for kind in kinds:
                    seen, answers, rest = visible.watch(s, "small", self.small[:1], rate, seconds, 1000 + k, beside[kind])
                    every[kind] += seen
                    p50[kind].append(quantile(seen, 0.5))
                    p99[kind].append(quantile(seen, 0.99))
                    answered[kind].append(quantile(answers, 0.99))
                    after[kind].append(quantile(rest, 0.99))
                    s.wait_metric(lambda m: float(m["feedmill_fanout_backlog"]) == 0, 300)
        r = self.report
        names = {"idle": "nothing else", "huge": "one item after the other to %d followers" % huge,
                 "without pause": "a publisher (1000 followers) without pause"}
        for kind in kinds:
            r.row("H small publisher to visible, median; beside: " + names[kind], "ms", VISIBLE, p50[kind])
            r.row("H the same, 99th percentile", "ms", VISIBLE, p99[kind])
            r.row("H the same, of it to the publish's answer, 99th percentile", "ms", VISIBLE, answered[kind])
            r.row("H the same, from the publish's answer on, 99th percentile", "ms", VISIBLE, after[kind])
        for kind in kinds[1:]:
            r.row("H 99th percentile against idle; beside: " + names[kind], "ratio", "H, each round",
                  [a / b for a, b in zip(p99[kind], p99["idle"])], at_most=2)
            r.row("H the same, from the publish's answer on", "ratio", "H, each round",
                  [a / b for a, b in zip(after[kind], after["idle"])])
            if every[kind]:
                r.row("H 99th percentile of all rounds together, against idle", "ratio", "H",
                      [quantile(every[kind], 0.99) / quantile(every["idle"], 0.99)])
        r.note("H without pause: " + " ".join(command).replace(s.key, "<key>"))

    # ---- all of it ----

    def note_audit(self, stack):
        checks, findings = stack.audit()
        self.report.note("fanout itself compared %d timelines with MongoDB meanwhile: %d findings" % (checks, findings))

    def measure(self, letters, job):
        if self.wants(letters):
            began = time.monotonic()
            self.report.title(", ".join(letters))
            job()
            print("  %.0f s" % (time.monotonic() - began))
            if self.trouble:
                raise self.trouble

    def in_world(self, title, begin, jobs):
        if not any(self.wants(letters) for letters, _ in jobs):
            return
        began = time.monotonic()
        self.report.title(title)
        begin()
        self.report.note("made in %.0f s" % (time.monotonic() - began))
        for letters, job in jobs:
            self.measure(letters, job)
        self.note_audit(self.stack)
        self.end_world()

    def run(self):
        self.in_world("%d readers with full timelines of 120" % FULL, self.begin_full,
                      [("AB", self.job_ab), ("C", self.job_c), ("F", self.job_f), ("E", self.job_e)])
        self.in_world("up to a million followers", self.begin_wide, [("D", self.job_d), ("H", self.job_h)])
        self.measure("G", lambda: pull.job(self))


if __name__ == "__main__":
    sys.exit(harness.run(Bench(harness.options(__doc__, ALL)), OUT))
