"""How long it takes from a publish to its item on a follower's page: publishes at random times at a given rate, and followers
who look at their page without pause. An asyncio loop; nothing here prints."""
import asyncio
import json
import random
import time

from world import Failed

FEED = "/v1/users/%s/feed?fields=ids&limit=%d"
POSTS_AT_ONCE = 16
LOOK_S = 0.0015  # between a page and the next one
PAGE, LONG_PAGE = 20, 100


class Client:
    """One keep-alive connection."""

    def __init__(self, port, key):
        self.port, self.key = port, key
        self.reader = self.writer = None

    async def __call__(self, method, path, body=b""):
        if not self.writer:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(("%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n"
                           "%s\r\n" % (method, path, self.key, len(body),
                                       "Content-Type: application/json\r\n" if body else "")).encode() + body)
        async with asyncio.timeout(30):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            data = await self.reader.readexactly(length)
        status = int(head[9:12])
        if status >= 300:
            raise Failed("%s %s: %d %s" % (method, path, status, data[:300].decode()))
        return data

    def close(self):
        if self.writer:
            self.writer.close()


class Watch:
    """Publishes of one publisher, and when they were seen. All times monotonic, in seconds."""

    def __init__(self, stack, publisher, readers, rate, seconds, seed):
        self.stack, self.publisher, self.readers = stack, publisher, readers
        self.rate, self.seconds = rate, seconds
        self.random = random.Random(seed)
        self.tag = "v%d-%d" % (seed, time.monotonic_ns())
        self.due, self.answered = {}, {}  # id: when its publish was due, when it was answered
        self.seen = {r: {} for r in readers}
        self.clients = []
        self.publishing = True
        self.text = "b" * 200

    def client(self):
        self.clients.append(Client(self.stack.port, self.stack.key))
        return self.clients[-1]

    async def post(self, client, n, due, idle):
        body = json.dumps({"publisher": self.publisher, "external_id": "%s-%d" % (self.tag, n), "title": "Item %d" % n,
                           "body": self.text}).encode()
        item = json.loads(await client("POST", "/v1/items", body))["id"]
        self.due[item], self.answered[item] = due, time.monotonic()
        idle.put_nowait(client)

    async def publish(self):
        """At random times, whether the last one was answered or not; waiting for a connection counts."""
        idle = asyncio.Queue()
        for _ in range(POSTS_AT_ONCE):
            idle.put_nowait(self.client())
        due = time.monotonic() + 0.2
        until, n, posts = due + self.seconds, 0, []
        while due < until:
            await asyncio.sleep(max(0, due - time.monotonic()))
            client = await idle.get()
            posts.append(asyncio.ensure_future(self.post(client, n, due, idle)))
            n += 1
            due += self.random.expovariate(self.rate)
        await asyncio.gather(*posts)
        self.publishing = False

    async def look(self, reader):
        client, seen = self.client(), self.seen[reader]
        deadline = time.monotonic() + self.seconds + 60
        while self.publishing or any(i not in seen for i in self.due):
            path = FEED % (reader, PAGE)
            while path:
                page = json.loads(await client("GET", path))
                now = time.monotonic()
                new = [i["id"] for i in page["items"] if i["id"] not in seen]
                for item in new:
                    seen[item] = now
                # Only where all are new there may be more of them on the next page.
                more = new and len(new) == len(page["items"]) and page["next"] and len(seen) > len(new)
                path = FEED % (reader, LONG_PAGE) + "&cursor=" + page["next"] if more else None
            if time.monotonic() > deadline:
                raise Failed("%d items of %s were not seen within 60 s" % (len([i for i in self.due if i not in seen]), self.publisher))
            await asyncio.sleep(LOOK_S)

    async def run(self, beside):
        tasks = [asyncio.ensure_future(self.look(r)) for r in self.readers]
        tasks.append(asyncio.ensure_future(self.publish()))
        other = asyncio.ensure_future(beside(self)) if beside else None
        try:
            await asyncio.gather(*tasks)
        finally:
            for t in tasks + ([other] if other else []):
                t.cancel()
            await asyncio.gather(*tasks, *([other] if other else []), return_exceptions=True)
            for c in self.clients:
                c.close()
        if other and not other.cancelled() and other.exception():
            raise other.exception()

    def times(self):
        """ms from when each publish was due to when each reader saw it; to the publish's answer; and from that to the reader."""
        visible = [(seen[i] - due) * 1000 for seen in self.seen.values() for i, due in self.due.items()]
        after = [(seen[i] - at) * 1000 for seen in self.seen.values() for i, at in self.answered.items()]
        return visible, [(self.answered[i] - due) * 1000 for i, due in self.due.items()], after


def watch(stack, publisher, readers, rate, seconds, seed, beside=None):
    """beside: a coroutine function that gets the Watch and runs until cancelled."""
    w = Watch(stack, publisher, readers, rate, seconds, seed)
    asyncio.run(w.run(beside))
    return w.times()


def keep_publishing(publisher, fanout_port):
    """One item after the other of a publisher with a huge audience, so that one always waits behind the one under way."""
    async def go(w):
        client, n = w.client(), 0
        ask = Client(fanout_port, "none")
        w.clients.append(ask)
        while True:
            text = (await ask("GET", "/metrics")).decode()
            backlog = float(text.split("\nfeedmill_fanout_backlog ")[1].split("\n")[0])
            if backlog < 2:
                await client("POST", "/v1/items", json.dumps(
                    {"publisher": publisher, "external_id": "%s-huge-%d" % (w.tag, n), "title": "t", "body": w.text}).encode())
                n += 1
            await asyncio.sleep(0.02)
    return go
