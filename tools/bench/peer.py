"""The peer of the deliveries: the plain capped write of redis-benchmark, on copies of a full timeline."""
import subprocess

from world import Failed, timeline_key

KEYS, ENTRIES, DEEP = 10000, 120, 100
REQUESTS = 2 * KEYS  # of one measurement: some keys grow by up to 7 before they are made anew, and stay listpacks
NEW = "4000__rand_int__"  # 16 digits, as ids have, and newer than all of them

# Newest first is how fanout stores it; newest last is the usual way. The better one counts.
WAYS = {
    "score = -id": (-1, ["ZADD", "bench:__rand_int__", "-" + NEW, NEW], ["ZREMRANGEBYRANK", "bench:__rand_int__", "-1", "-1"]),
    "score = id": (1, ["ZADD", "bench:__rand_int__", NEW, NEW], ["ZREMRANGEBYRANK", "bench:__rand_int__", "0", "0"]),
}


class Peer:
    def __init__(self, stack, reader):
        """Takes the newest entries of the reader's timeline, which must be full."""
        self.stack = stack
        ids = [i for i in stack.redis("ZRANGE", timeline_key(reader), 0, -1) if i != b"f"][:ENTRIES]
        if len(ids) != ENTRIES:
            raise Failed("the timeline of %s has %d entries" % (reader, len(ids)))
        for way, (sign, _, _) in WAYS.items():
            words = [w for i in ids for w in (sign * int(i), i)]
            stack.redis("DEL", "bench-of:" + way)
            stack.redis("ZADD", "bench-of:" + way, *words)
        self.fill("score = -id")  # they are there while fanout is measured too: the same memory, the same rewriting of the log

    def fill(self, way):
        self.stack.redis.bulk(("COPY", "bench-of:" + way, "bench:%012d" % i, "REPLACE") for i in range(KEYS))

    def command(self, words, connections):
        return ["redis-benchmark", "-s", self.stack.socket_path, "-n", str(REQUESTS), "-r", str(KEYS), "-c", str(connections),
                "-P", str(DEEP), "--csv"] + words

    def run(self, words, connections):
        """Seconds of one measurement, by its own clock, and of Redis' main thread."""
        before = self.stack.run_ns("redis")
        out = subprocess.run(self.command(words, connections), capture_output=True, text=True, timeout=60, check=True).stdout
        used = (self.stack.run_ns("redis") - before) / 1e9
        return REQUESTS / float(out.strip().splitlines()[-1].split('","')[1]), used

    def measure(self, cycles):
        """{(way, connections): (plain capped writes a second, us of Redis for one)}; each cycle begins with the same full
        keys."""
        out = {}
        for way, (_, add, trim) in WAYS.items():
            for connections in (1, 50):
                seconds = used = 0
                for _ in range(cycles):
                    self.fill(way)
                    for words in (add, trim):
                        s, u = self.run(words, connections)
                        seconds, used = seconds + s, used + u
                out[way, connections] = cycles * REQUESTS / seconds, 1e6 * used / (cycles * REQUESTS)
            encodings = set(self.stack.redis.many([("OBJECT", "ENCODING", "bench:%012d" % i) for i in range(0, KEYS, 100)]))
            if encodings != {b"listpack"}:
                raise Failed("the copies are not what timelines are: %s" % encodings)
        return out

    def commands(self):
        for way, (_, add, trim) in WAYS.items():
            for words in (add, trim):
                yield " ".join(self.command(words, "<1|50>")).replace(self.stack.socket_path, "<socket>")

    def remove(self):
        self.stack.redis.bulk(("DEL", "bench:%012d" % i) for i in range(KEYS))
        self.stack.redis("DEL", *("bench-of:" + w for w in WAYS))
