"""Bulk requests to feed-api, for tools that load data: who is asked to come again later does so, and the answers' lines are told apart.

A Client may be used by several threads: each has a connection of its own, and when the server tells one of them to wait, all do.
"""
import http.client
import json
import random
import threading
import time
import urllib.parse

ITEMS = "/v1/items/bulk"
FOLLOWS = "/v1/follows/bulk"
LINES_MAX = {ITEMS: 1000, FOLLOWS: 10000}
BYTES_MAX = 8 << 20
NDJSON = "application/x-ndjson"
WAIT_MAX = 60.0  # seconds; whatever a server says, it is asked again after that


class Failed(Exception):
    """It can't go on: the server refused the request as a whole, or did not answer for too long."""


class Stopped(Exception):
    """The caller's stop was set while waiting; whether the last request was acted on is not known."""


class Client:
    """stop: a threading.Event that ends all waiting, or None. patience: seconds without any answer after which to give up."""

    def __init__(self, url, key, patience=300.0, stop=None):
        self.url = urllib.parse.urlsplit(url)
        if self.url.scheme not in ("http", "https") or not self.url.hostname:
            raise Failed(f"{url} is not an address such as http://127.0.0.1:8080")
        self.key, self.patience, self.stop = key, patience, stop or threading.Event()
        self.local = threading.local()
        self.lock = threading.Lock()
        self.not_before = 0.0  # nobody asks before; on time.monotonic()
        self.answered = time.monotonic()  # when anything was done last
        self.waits = 0  # how often the server asked to come again later

    def connection(self):
        if getattr(self.local, "conn", None) is None:
            kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
            self.local.conn = kind(self.url.hostname, self.url.port, timeout=60)
        return self.local.conn

    def once(self, method, path, body, content_type):
        """One try: (status, headers, data); raises OSError or HTTPException."""
        headers = {"Authorization": "Bearer " + self.key}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            conn = self.connection()
            conn.request(method, self.url.path.rstrip("/") + path, body, headers)
            reply = conn.getresponse()
            return reply.status, reply.headers, reply.read()
        except (OSError, http.client.HTTPException):
            self.local.conn.close()
            self.local.conn = None
            raise

    def wait(self, seconds):
        """Holds all threads back for that long."""
        with self.lock:
            self.not_before = max(self.not_before, time.monotonic() + min(seconds, WAIT_MAX))
            self.waits += 1

    def take_turn(self):
        while True:
            if self.stop.is_set():
                raise Stopped()
            left = self.not_before - time.monotonic()
            if left <= 0:
                return
            self.stop.wait(left)

    def call(self, method, path, body=None, content_type="application/json"):
        """Asks until it is done, and answers the body. Whatever is sent has to be harmless when sent twice."""
        backoff = 0.1
        began = time.monotonic()
        while True:
            self.take_turn()
            try:
                status, headers, data = self.once(method, path, body, content_type)
            except (OSError, http.client.HTTPException) as problem:
                asked, what = 0.0, f"{type(problem).__name__}: {problem}"
            else:
                if status < 300:
                    self.answered = time.monotonic()
                    return data
                if status not in (429, 500, 502, 503, 504):
                    raise Failed(f"{method} {path} was answered {status}: {data[:400].decode('utf-8', 'replace')}")
                asked, what = retry_after(headers, data), f"status {status}"
                backoff = min(backoff, asked)  # who says when to come again is asked then, or soon after
            if time.monotonic() - max(self.answered, began) > self.patience:
                raise Failed(f"{method} {path}: no success for {self.patience:.0f} s, last: {what}. Is {self.url.geturl()} right?")
            backoff = min(backoff * 2, 10.0)
            self.wait(max(asked, backoff) * random.uniform(1.0, 1.2))

    def bulk(self, path, lines):
        """Sends lines (bytes without their newlines). Answers (data of good answers, [(index, answer)] of refused lines).

        Lines that are to be sent again are, together with all behind them, so that lines of the same item keep their order.
        """
        good, refused, at, tries = [], [], 0, 0
        while at < len(lines):
            data = self.call("POST", path, b"\n".join(lines[at:]) + b"\n", NDJSON)
            if data.count(b"\n") != len(lines) - at:
                raise Failed(f"POST {path}: {len(lines) - at} lines were answered by {data.count(bytes([10]))}")
            if b'"problem"' not in data:
                good.append(data)
                break
            again = None
            for index, text in enumerate(data.splitlines(), at):
                answer = json.loads(text)
                if answer["status"] < 300:
                    good.append(text + b"\n")
                elif answer["status"] in (429, 503) or (answer["status"] >= 500 and tries < 5):
                    again = index
                    self.wait(max(answer["problem"].get("retry_after_ms", 0) / 1000, 0.1 * 2**tries))
                    break
                else:
                    refused.append((index, answer))
            if again is None:
                break
            tries = 0 if again > at else min(tries + 1, 6)
            at = again
            if time.monotonic() - self.answered > self.patience:
                raise Failed(f"POST {path}: a line was put off for {self.patience:.0f} s")
        return b"".join(good), refused


def retry_after(headers, data):
    """The seconds that an answer asks to wait, by its body (milliseconds) or its header."""
    try:
        return json.loads(data)["retry_after_ms"] / 1000
    except (ValueError, KeyError, TypeError):
        pass
    try:
        return float(headers.get("Retry-After") or 1)
    except ValueError:
        return 1.0


def read_key(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read().strip()
    except OSError as problem:
        raise Failed(f"can't read the key: {problem}; give --key-file") from problem
