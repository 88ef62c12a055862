#!/usr/bin/env python3
"""What live streams cost: memory and CPU of idle ones, and how long an item takes to those who listen.

Starts a stack of its own, opens STREAMS (default: as many as this process may have files, at most 20,000) streams of readers
who follow FOLLOWS (50) of 5,000 publishers by chance and one that all follow, and prints

  - feed-api's resident memory by stream, once all are open and have been idle for a while, and its CPU meanwhile;
  - the time from an item's publication until the last listener has it: of a publisher that few follow, and of the one.
"""
import json
import os
import random
import resource
import selectors
import signal
import socket
import sys
import time

import world

PUBLISHERS = 5000
DEVICES = 4  # streams of one reader
FILES_SPARE = 300
WAVE = 200


class Stream:
    def __init__(self, port, key, user):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(("GET /v1/users/%s/feed/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n\r\n"
                             % (user, key)).encode())
        self.socket.setblocking(False)
        self.tail = b""
        self.ready, self.items = False, 0

    def take(self):
        """What has come; answers how many items were in it."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return 0
        if not data:
            raise world.Failed("a stream has ended")
        text = self.tail + data
        self.tail = text[-12:]
        if b"\nid: " in text:
            self.ready = True
        items = text.count(b"event: item\n")
        if b"event: item\n" in self.tail:  # not to be counted again
            self.tail = b""
        self.items += items
        return items


class Streams:
    def __init__(self):
        self.all, self.selector = [], selectors.DefaultSelector()

    def add(self, stream):
        self.all.append(stream)
        self.selector.register(stream.socket, selectors.EVENT_READ, stream)

    def read_until(self, done, seconds):
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                raise world.Failed("not all streams got what they should have within %d s" % seconds)
            for key, _ in self.selector.select(0.2):
                key.data.take()


def open_all(stack, streams, n):
    for i in range(n):
        streams.add(Stream(stack.port, stack.key, "u%d" % (i // DEVICES)))
        if i % WAVE == WAVE - 1 or i == n - 1:
            streams.read_until(lambda: all(s.ready for s in streams.all[-WAVE:]), 60)


def restart_feed_api(stack):
    old = stack.processes()["feed-api"][0]
    os.kill(old, signal.SIGTERM)
    until = time.monotonic() + 30
    while True:
        try:
            if stack.processes().get("feed-api", [old])[0] != old:
                stack.request("GET", "/v1/users/u0/feed")
                return
        except (OSError, world.http.client.HTTPException, world.Failed):
            stack.api.close()
        if time.monotonic() > until:
            raise world.Failed("feed-api was not started again")
        time.sleep(0.1)


def cpu_of_feed_api(stack):
    return sum(v for k, v in stack.cpu().items() if k.startswith("feed-api"))


def publish(stack, streams, publisher, listeners):
    """Seconds until the last of them has it."""
    had = sum(s.items for s in streams.all)
    body = json.dumps({"publisher": publisher, "title": "An item", "body": "b" * 1000})
    began = time.monotonic()
    stack.request("POST", "/v1/items", body)
    streams.read_until(lambda: sum(s.items for s in streams.all) >= had + listeners, 60)
    return time.monotonic() - began


def run(stack, n, follows):
    chance = random.Random(7)
    readers = (n + DEVICES - 1) // DEVICES
    followed = {}
    edges = []
    for r in range(readers):
        names = ["p%d" % p for p in chance.sample(range(PUBLISHERS), follows)]
        for name in names:
            followed[name] = followed.get(name, 0) + min(DEVICES, n - r * DEVICES)
        edges += [("u%d" % r, name) for name in names + ["everyone"]]
    stack.follow(edges)
    restart_feed_api(stack)  # or it would have room left from taking in the follows
    before = stack.memory("feed-api")
    streams = Streams()
    began = time.monotonic()
    open_all(stack, streams, n)
    opened = time.monotonic() - began
    after = stack.memory("feed-api")
    print("%d streams of %d follows each, opened in %.1f s" % (n, follows + 1, opened))
    print("feed-api: %.1f MiB without streams, %.1f MiB with: %.2f KiB a stream"
          % (before, after, (after - before) * 1024 / n))
    cpu, idle = cpu_of_feed_api(stack), time.monotonic()
    streams.read_until(lambda: time.monotonic() - idle > 35, 60)
    cpu = (cpu_of_feed_api(stack) - cpu) / (time.monotonic() - idle)
    later = stack.memory("feed-api")
    print("idle for 35 s: %.2f KiB a stream, %.1f %% of a core" % ((later - before) * 1024 / n, cpu * 100))
    few = min((x for x in followed if followed[x]), key=lambda x: abs(followed[x] - n // 100))
    for what, publisher, listeners in (("few", few, followed[few]), ("all", "everyone", n)):
        times = sorted(publish(stack, streams, publisher, listeners) for _ in range(5))
        print("an item for %s (%d streams): %.0f ms until the last has it (median of 5, client's work included)"
              % (what, listeners, times[2] * 1000))
    print("feed-api afterwards: %.2f KiB a stream" % ((stack.memory("feed-api") - before) * 1024 / n))


def main():
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    n = int(os.environ.get("STREAMS") or min(20000, files - FILES_SPARE))
    follows = int(os.environ.get("FOLLOWS") or 50)
    stack = world.Stack(world.BINARIES, {"FEEDMILL_MAX_CONNECTIONS": str(n + 100),
                                         "FEEDMILL_MAX_CONNECTIONS_PER_ADDRESS": "0"})
    try:
        run(stack, n, follows)
    except world.Failed as e:
        print("FAILED: %s" % e)
        return 1
    finally:
        stack.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
