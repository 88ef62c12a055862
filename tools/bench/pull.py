"""G: push against pull. What a publish costs by the number of followers, what a page costs by how many of the reader's targets are
pulled, and from both the point at which one becomes cheaper than the other."""
import json
import re
import statistics
import subprocess
import time

import world

PULL_FROM = 500  # followers from which on the second of the two stacks pulls; the first one never does
CROWD = PULL_FROM
TARGETS = 50     # that each reader of the pages follows
READERS = 100    # of each kind of reader; fewer than PULL_FROM in all, so that the others stay pushed
MODES = ("push", "pull")
COMMAND = "/proc/<pid>/stat of feed-api, fanout, Redis and MongoDB: CPU of one"


def wait_pulled(stack, publishers):
    until = time.monotonic() + 90
    for p in publishers:
        while json.loads(stack.request("GET", "/v1/publishers/" + p)[1])["mode"] != "pull":
            if time.monotonic() > until:
                raise world.Failed("%s did not turn to pull" % p)
            time.sleep(0.2)


class PushPull:
    def __init__(self, bench):
        self.b, self.r = bench, bench.report
        self.sizes = bench.size([1000, 10000, 100000], [1000, 5000])
        self.pulled = bench.size([0, 1, 10, 50], [0, 10])
        self.stacks = {}
        self.users = {n: ["g%04d-%07d" % (n // 1000, i) for i in range(n)] for n in self.sizes}

    def end(self):
        for s in self.stacks.values():
            s.end()

    def begin(self):
        for mode, threshold in (("push", 0), ("pull", PULL_FROM)):
            s = self.stacks[mode] = world.Stack(world.BINARIES, {
                "FEEDMILL_PULL_THRESHOLD": str(threshold), "FEEDMILL_COUNT_INTERVAL": "500ms"})
            position = None
            for n, users in self.users.items():
                position = s.follow((u, "wide-%d" % n) for u in users)
                s.publish("wide-%d" % n, "fill", 130)
            if mode == "pull":
                position = self.begin_pages(s)
                wait_pulled(s, ["wide-%d" % n for n in self.users] + ["big-%d" % i for i in range(TARGETS)])
            s.wait_applied(position)
            s.wait_applied(s.publish("wide-%d" % self.sizes[0], "turned", 1))
            s.read_pages([users[0] for users in self.users.values()])
            for users in self.users.values():
                s.copy_timelines(users)
            s.restart_fanout(sum(self.users))
            if mode == "pull":
                for k in self.pulled:
                    s.read_pages(self.readers(k))
                self.check_pulled(s)
            for n in self.users:
                s.wait_applied(s.publish("wide-%d" % n, "warm", 2))
        self.r.note("two stacks with the same content, one with --pull-threshold 0, one with %d; all followers active, one of each "
                    "publisher by a page, the others' timelines copied from his; timelines full at 120" % PULL_FROM)

    @staticmethod
    def readers(k):
        return ["reads-%d-%d" % (k, i) for i in range(READERS)]

    def check_pulled(self, s):
        """A new item of a pulled publisher is on the page, and not in the timeline."""
        reader, counted = self.readers(max(self.pulled))[0], s.deliveries()
        position = s.publish("big-0", "pulled", 1)
        s.wait_applied(position)
        page = json.loads(s.request("GET", "/v1/users/%s/feed?limit=1&fields=summary&position=%s" % (reader, position))[1])
        if page["items"][0]["external_id"] != "pulled-0" or s.deliveries() != counted:
            raise world.Failed("the pulled publishers are not pulled")

    def begin_pages(self, s):
        """Readers who follow TARGETS publishers, k of which are big enough to be pulled."""
        s.follow(("crowd-%d" % u, "big-%d" % i) for u in range(CROWD) for i in range(TARGETS))
        position = s.follow((u, "%s-%d" % ("big" if i < k else "tiny", i))
                            for k in self.pulled for u in self.readers(k) for i in range(TARGETS))
        for i in range(TARGETS):
            for kind in ("big", "tiny"):
                s.publish("%s-%d" % (kind, i), "fill", 40, "b" * 1000)
        return position

    def cost_of_publish(self, mode, n, items):
        """ms of CPU, and of time until all is applied, of one publish."""
        s = self.b.stack = self.stacks[mode]
        seconds, cpu = self.b.deliver("wide-%d" % n, items, n if mode == "push" else 0)
        return 1000 * sum(v for k, v in cpu.items() if k != "ranker") / items, 1000 * seconds / items

    def cost_of_page(self, k, seconds):
        """Pages a second, and us of CPU for one."""
        s = self.stacks["pull"]
        path = s.dir + "/pages-%d" % k
        with open(path, "w", encoding="utf-8") as f:
            f.write("".join(u + "\n" for u in self.readers(k)))
        command = ["wrk", "-t2", "-c32", "-d%ds" % seconds, "-s", world.HERE + "/pages.lua", "http://127.0.0.1:%d" % s.port, "--",
                   path, s.key, "limit=20"]
        before = s.cpu()
        out = subprocess.run(command, capture_output=True, text=True, preexec_fn=world.end_with_parent, timeout=60, check=True).stdout
        used = world.spent(before, s.cpu())
        if "Non-2xx" in out or "Socket errors" in out:
            raise world.Failed("wrk: " + out)
        pages = int(re.search(r"(\d+) requests in", out).group(1))
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
        return rate, 1e6 * sum(v for n, v in used.items() if n != "ranker") / pages

    def measure(self):
        b, seconds = self.b, self.b.size(3, 2)
        budget = b.size(1000000, 100000)
        cost = {(m, n): [] for m in MODES for n in self.sizes}
        time_of = {(m, n): [] for m in MODES for n in self.sizes}
        rates, pages = {k: [] for k in self.pulled}, {k: [] for k in self.pulled}
        extra = []
        items = {("push", n): max(3, min(1000, budget // n)) for n in self.sizes}
        items.update({("pull", n): 1000 for n in self.sizes})
        with b.turns():
            self.take_turns(cost, time_of, rates, pages, extra, items, seconds)
        self.tell(cost, time_of, rates, pages, extra, items, seconds)

    def take_turns(self, cost, time_of, rates, pages, extra, items, seconds):
        for i in range(self.b.rounds):
            for k in self.pulled[:: -1 if i % 2 else 1]:
                rate, us = self.cost_of_page(k, seconds)
                rates[k].append(rate)
                pages[k].append(us)
            most = max(self.pulled)
            extra.append((pages[most][-1] - pages[0][-1]) / most)
            for n in self.sizes:
                for m in MODES:
                    used, took = self.cost_of_publish(m, n, items[m, n])
                    cost[m, n].append(used)
                    time_of[m, n].append(took)

    def tell(self, cost, time_of, rates, pages, extra, items, seconds):
        most = max(self.pulled)
        r, wrk = self.r, "wrk -t2 -c32 -d%ds -s tools/bench/pages.lua, limit=20" % seconds
        for k in self.pulled:
            r.row("G pages of readers of %d targets, %d of them pulled" % (TARGETS, k), "pages/s", wrk, rates[k])
        for k in self.pulled:
            r.row("G a page, %d of %d targets pulled" % (k, TARGETS), "us", COMMAND, pages[k])
        added = r.row("G what one pulled target adds to a page", "us", "(%d pulled - 0 pulled) / %d" % (most, most), extra)
        if added is not None and added <= 0:
            r.note("G that is less than can be told from the noise")
        for n in self.sizes:
            for m in MODES:
                r.row("G a publish to %d followers, %s" % (n, m), "ms", COMMAND, cost[m, n])
                r.row("G the same, time", "ms", "%d items in bulk until all are applied" % items[m, n], time_of[m, n])
            if not added or added <= 0 or not cost["pull", n]:
                continue
            saved = statistics.median(cost["push", n]) - statistics.median(cost["pull", n])
            if saved > 0:
                r.row("G %d followers: pull is cheaper above" % n, "publishes/page",
                      "followers * what one adds to a page / (push - pull), of the medians", [added * n / 1000 / saved])
        r.note("G publishes/page: publishes of the target for each page that each of its active followers reads. It hardly depends on "
               "their number, so what speaks for a threshold is the time that a publish takes until the last of them has it")


def job(bench):
    p = PushPull(bench)
    try:
        p.begin()
        p.measure()
        for s in p.stacks.values():
            bench.note_audit(s)
    finally:
        p.end()
        bench.stack = None
