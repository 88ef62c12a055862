#!/usr/bin/env python3
"""Move items and follows into a feedmill from NDJSON files, as many as there are.

A line is what POST /v1/items/bulk takes ({"publisher", "external_id", "title", ...} or {"op": "delete", ...}), or POST
/v1/follows/bulk ({"user", "kind", "name", "since"}). Files may be gzipped; "-" is the standard input. Items come first, then follows.

It may be interrupted at any time (Ctrl-C, kill -9, a reboot) and started again with the same arguments: a small journal says up to
where everything was acknowledged, and what is sent again changes nothing. That takes an external_id in every item. Lines that the
server refuses go to a file with the reason, the others go on. Follows move in fastest when the lines of a user stand together
(sort the file by user).

Exit status: 0 all is in; 1 some lines were refused; 2 it could not run, or not go on; 130 interrupted.
"""
import argparse
import collections
import fcntl
import gzip
import json
import os
import queue
import signal
import sys
import threading
import time
import zlib

import bulk_client
from bulk_client import Failed, Stopped

BLOCK = 1 << 20  # bytes read at a time
LINE_MAX = bulk_client.BYTES_MAX - 1
SAVE_SECONDS = 1.0
SHOW_SECONDS = 5.0
PATHS = {"items": bulk_client.ITEMS, "follows": bulk_client.FOLLOWS}

Checkpoint = collections.namedtuple("Checkpoint", "line offset begin crc")  # the end of a block, and where the block began


class Input:
    """One file, read as blocks of whole lines. Offsets are of the text, not of its compressed form."""

    def __init__(self, kind, name):
        self.kind, self.name, self.raw, self.file = kind, name, None, None
        self.stream = name == "-" or not os.path.isfile(name)
        self.size = None if self.stream else os.path.getsize(name)

    def open(self):
        self.raw = sys.stdin.buffer if self.name == "-" else open(self.name, "rb")
        packed = self.raw.peek(2)[:2] == b"\x1f\x8b"
        self.file = gzip.GzipFile(fileobj=self.raw) if packed else self.raw

    def close(self):
        if self.raw and self.name != "-":
            self.raw.close()

    def share_read(self):
        """How much of it was read, 0 to 1; None when that can't be known."""
        return min(self.raw.tell() / self.size, 1.0) if self.size else None

    def go_to(self, at):
        """Goes to a checkpoint, and sees that the block before it is the one that was read then."""
        crc, left = 0, at.offset - at.begin
        if self.file is self.raw and not self.stream:
            self.file.seek(at.begin)
        else:
            self.read_over(at.begin)
        while left > 0:
            data = self.file.read1(min(left, BLOCK))
            if not data:
                break
            crc, left = zlib.crc32(data, crc), left - len(data)
        if left or crc != at.crc:
            raise Failed(f"{self.name} is not what was begun with; remove the journal to begin anew")

    def read_over(self, n):
        while n > 0:
            data = self.file.read1(min(n, BLOCK))
            if not data:
                raise Failed(f"{self.name} is shorter than when it was begun; remove the journal to begin anew")
            n -= len(data)

    def blocks(self):
        """Yields ([lines], bytes, crc). A line has no newline; None stands for one that is longer than a request may be."""
        carry, dropped, crc = b"", 0, 0
        while True:
            data = self.file.read1(BLOCK)
            text = carry + data
            end = text.rfind(b"\n") + 1 if data else len(text)
            text, carry = text[:end], text[end:]
            if text or (dropped and not data):
                lines = text.split(b"\n")
                if text.endswith(b"\n"):
                    lines.pop()
                if dropped:
                    lines[0] = None
                yield [x if x is None or len(x) <= LINE_MAX else None for x in lines], len(text) + dropped, zlib.crc32(text, crc)
                dropped, crc = 0, 0
            if len(carry) > LINE_MAX:
                crc, dropped, carry = zlib.crc32(carry, crc), dropped + len(carry), b""
            if not data:
                return


class Journal:
    """What is acknowledged, in a file that is replaced whole; beside it the file of refused lines.

    A refused line is written down when everything before it is acknowledged, together with the journal, which remembers how long
    the file was: so after an interruption each refused line stands in it once.
    """

    def __init__(self, path, rejects_path, url, inputs):
        self.path = path
        self.rejects_path = rejects_path
        self.rejects = open(rejects_path, "ab")
        try:
            fcntl.flock(self.rejects, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise Failed(f"another move-in uses {rejects_path}") from problem
        names = [{"kind": i.kind, "name": i.name, "size": i.size} for i in inputs]
        self.state = {"version": 1, "url": url, "rejects_bytes": 0, "files": names}
        for f in self.state["files"]:
            f.update(line=0, offset=0, begin=0, crc=0, rejected=0, checked=False, done=False)
        self.resumed = os.path.exists(path)
        if self.resumed:
            self.load(names)
        elif self.rejects.tell() > 0:
            raise Failed(f"{rejects_path} is there already, of another move-in: move it away, or name another with --rejects")
        self.state["rejects_bytes"] = min(self.state["rejects_bytes"], self.rejects.tell())
        self.rejects.truncate(self.state["rejects_bytes"])

    def load(self, names):
        try:
            with open(self.path, encoding="utf-8") as f:
                state = json.load(f)
            theirs = [{k: f[k] for k in ("kind", "name", "size")} for f in state["files"]]
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise Failed(f"can't read the journal {self.path}: {problem}; remove it to begin anew") from problem
        if state["url"] != self.state["url"] or theirs != [{k: f[k] for k in ("kind", "name", "size")} for f in names]:
            raise Failed(f"the journal {self.path} is of other files or another server; name another with --journal, or remove it")
        self.state = state

    def save(self):
        data = json.dumps(self.state, indent=1) + "\n"
        with open(self.path + ".new", "w", encoding="utf-8") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(self.path + ".new", self.path)

    def add_rejects(self, texts):
        if texts:
            self.rejects.write(b"".join(texts))
            self.rejects.flush()
            os.fsync(self.rejects.fileno())
            self.state["rejects_bytes"] += sum(map(len, texts))

    def close(self):
        if self.state["rejects_bytes"] == 0 and os.path.exists(self.rejects_path):
            os.remove(self.rejects_path)
        self.rejects.close()


class Batch:
    """Lines that go together, with their numbers."""

    def __init__(self):
        self.lines, self.numbers, self.bytes = [], [], 0

    def add(self, line, number):
        self.lines.append(line)
        self.numbers.append(number)
        self.bytes += len(line) + 1


class Mover:
    """Moves one file in. One thread reads and divides the lines, so that those of one item, or of one user, always go over the same
    connection in their order; a thread for each connection sends."""

    def __init__(self, client, journal, source, state, connections):
        self.client, self.journal, self.source, self.state = client, journal, source, state
        self.path = PATHS[source.kind]
        self.lines_max = bulk_client.LINES_MAX[self.path]
        self.window = 4 * connections * self.lines_max  # lines that may be open behind the oldest one
        self.parts = [Batch() for _ in range(connections)]
        self.queues = [queue.Queue(1) for _ in range(connections)]
        self.lock = threading.Lock()
        self.under_way = {}  # id of a batch -> its first line
        self.checkpoints = collections.deque()
        self.refused = []  # (line, text) not written down yet
        self.line = state["line"]
        self.began = self.saved = self.shown = time.monotonic()
        self.sent = self.unchanged = self.gone = self.bad = 0
        self.unsaved = False
        self.error = None

    # ---- reading ----

    def key_of(self, line):
        """What lines have in common that must not overtake one another. Lines that the server will refuse go anywhere."""
        try:
            o = json.loads(line)
            if self.source.kind == "follows":
                return o["user"].encode()
            return (o["publisher"] + "\n" + o["external_id"]).encode()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if self.source.kind == "items" and lacks_external_id(line):
                raise Failed(no_external_id(self.source.name, self.line)) from None
            return line[:64]

    def take(self, lines):
        n, stop = len(self.parts), self.client.stop
        for line in lines:
            self.line += 1
            if line is None:
                self.note_refused(self.line, b"", {"status": 413, "problem": {"detail": "is longer than a request may be"}})
                continue
            if not line or line.isspace():
                continue
            i = zlib.crc32(self.key_of(line)) % n
            part = self.parts[i]
            if len(part.lines) == self.lines_max or part.bytes + len(line) + 1 > bulk_client.BYTES_MAX:
                self.hand_over(i)
                part = self.parts[i]
            part.add(line, self.line)
            if stop.is_set():
                raise Stopped()

    def hand_over(self, i):
        part = self.parts[i]
        if not part.lines:
            return
        with self.lock:
            self.under_way[id(part)] = part.numbers[0]
            self.parts[i] = Batch()
        while True:
            if self.client.stop.is_set():
                raise Stopped()
            try:
                self.queues[i].put(part, timeout=0.2)
                return
            except queue.Full:
                self.show()

    def read(self):
        if self.state["offset"]:
            self.source.go_to(Checkpoint(self.state["line"], *(self.state[k] for k in ("offset", "begin", "crc"))))
        offset = self.state["offset"]
        for lines, size, crc in self.source.blocks():
            self.take(lines)
            with self.lock:
                self.checkpoints.append(Checkpoint(self.line, offset + size, offset, crc))
            offset += size
            for i, part in enumerate(self.parts):  # a part that fills slowly must not hold the journal back
                if part.lines and part.numbers[0] < self.line - self.window:
                    self.hand_over(i)
            self.show()
        for i in range(len(self.parts)):
            self.hand_over(i)

    # ---- sending ----

    def send_all(self, i):
        try:
            while (batch := self.next_batch(i)) is not None:
                if not self.client.stop.is_set():
                    good, refused = self.client.bulk(self.path, batch.lines)
                    self.acknowledged(batch, good, refused)
        except Stopped:
            pass
        except Exception as problem:  # pylint: disable=broad-except  # told by the thread that waits
            self.error = self.error or problem
            self.client.stop.set()

    def next_batch(self, i):
        while True:
            try:
                return self.queues[i].get(timeout=SAVE_SECONDS)
            except queue.Empty:  # the input stands still: what was acknowledged last is written down all the same
                with self.lock:
                    if self.unsaved:
                        self.save()

    def acknowledged(self, batch, good, refused):
        gone = [answer for _, answer in refused if answer["status"] == 410]  # deleted by a later line, or there: it stays so
        for index, answer in refused:
            if answer["status"] != 410:
                self.note_refused(batch.numbers[index], batch.lines[index], answer)
        with self.lock:
            self.sent += len(batch.lines)
            self.gone += len(gone)
            self.unchanged += good.count(b'"unchanged"')
            del self.under_way[id(batch)]
            self.unsaved = True
            if time.monotonic() - self.saved > SAVE_SECONDS:
                self.save()

    def note_refused(self, number, line, answer):
        told = {"file": self.source.name, "line": number, "status": answer["status"], "problem": answer["problem"]}
        told["text"] = line.decode("utf-8", "replace")
        with self.lock:
            self.bad += 1
            self.refused.append((number, (json.dumps(told, ensure_ascii=False) + "\n").encode("utf-8", "replace")))

    def save(self):
        """Writes down up to where all lines are acknowledged. Under the lock."""
        self.saved, self.unsaved = time.monotonic(), False
        waiting = list(self.under_way.values()) + [p.numbers[0] for p in self.parts if p.numbers]
        low = min(waiting, default=self.line + 1)
        while self.checkpoints and self.checkpoints[0].line < low:
            at = self.checkpoints.popleft()
            self.state.update(line=at.line, offset=at.offset, begin=at.begin, crc=at.crc)
        self.refused.sort()
        n = sum(1 for number, _ in self.refused if number <= self.state["line"])
        self.journal.add_rejects([text for _, text in self.refused[:n]])
        self.state["rejected"] += n
        del self.refused[:n]
        self.journal.save()

    # ---- the whole ----

    def run(self):
        threads = [threading.Thread(target=self.send_all, args=(i,)) for i in range(len(self.queues))]
        for t in threads:
            t.start()
        try:
            self.read()
        except BaseException as problem:  # pylint: disable=broad-except  # raised again when the threads are done
            if not isinstance(problem, Stopped):
                self.error = self.error or problem
            self.client.stop.set()
        for q, t in zip(self.queues, threads):
            while t.is_alive():
                try:
                    q.put(None, timeout=0.2)
                    break
                except queue.Full:
                    self.show()
            while t.is_alive():
                t.join(0.2)
                self.show()
        stopped = self.error or self.client.stop.is_set()
        with self.lock:
            self.state["done"] = not stopped
            self.save()
        self.show(last=True)
        if self.error:
            raise self.error
        if stopped:
            raise Stopped()

    def show(self, last=False):
        now = time.monotonic()
        if not last and now - self.shown < (0.5 if sys.stdout.isatty() else SHOW_SECONDS):
            return
        self.shown = now
        share, rate = self.source.share_read(), self.sent / max(now - self.began, 1e-3)
        text = f"move-in: {self.source.kind}: {self.line} lines"
        if share and not last:
            text += f", {100 * share:.0f} %"
        text += f", {rate:.0f} a second"
        if share and not last and rate:
            text += f", {self.line * (1 - share) / share / rate:.0f} s to go"
        text += f", {self.unchanged} were there, {self.state['rejected'] + len(self.refused)} refused"
        text += f", {self.gone} deleted there" if self.gone else ""
        text += f", told to wait {self.client.waits} times" if self.client.waits else ""
        tty = sys.stdout.isatty()
        print(("\r\033[K" if tty else "") + text, end="\n" if last or not tty else "", flush=True)


def lacks_external_id(line):
    """Whether a line is an item that could be stored twice. What is no item at all is for the server to refuse."""
    try:
        o = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(o, dict) and not isinstance(o.get("external_id"), str)


def no_external_id(name, line):
    return (
        f"{name}:{line}: an item without an external_id (a string): sent again after an interruption it would be stored twice. "
        "Give every item one"
    )


def check_items(source, stop):
    """Sees that every item can be sent twice, before anything is sent."""
    number, shown = 0, time.monotonic()
    source.open()
    try:
        for lines, _, _ in source.blocks():
            for line in lines:
                number += 1
                if line and not line.isspace() and lacks_external_id(line):
                    raise Failed(no_external_id(source.name, number))
            if stop.is_set():
                raise Stopped()
            if time.monotonic() - shown > SHOW_SECONDS:
                shown = time.monotonic()
                print(f"move-in: looking at {source.name}: {100 * source.share_read():.0f} %", flush=True)
    finally:
        source.close()


def move(client, journal, inputs, connections):
    refused = 0
    for source, state in zip(inputs, journal.state["files"]):
        if source.kind == "items" and not source.stream and not state["checked"]:
            check_items(source, client.stop)
            state["checked"] = True
    journal.save()  # before the first refused line is written down: the journal says whose they are
    for source, state in zip(inputs, journal.state["files"]):
        if not state["done"]:
            if state["line"]:
                print(f"move-in: {source.name}: going on after line {state['line']}", flush=True)
            source.open()
            try:
                Mover(client, journal, source, state, connections).run()
            finally:
                source.close()
        refused += state["rejected"]
    lines = sum(f["line"] for f in journal.state["files"])
    where = f", {refused} refused: see {journal.rejects_path}" if refused else ""
    print(f"move-in: done, {lines} lines{where}", flush=True)
    return 1 if refused else 0


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--items", action="append", default=[], metavar="FILE", help="items to move in; may be given several times")
    ap.add_argument("--follows", action="append", default=[], metavar="FILE", help="follows to move in; the same")
    ap.add_argument("--url", default="http://127.0.0.1:8080", help="where feedmill answers (default %(default)s)")
    ap.add_argument("--key-file", default="run/admin.key", help="file with an admin or service key (default %(default)s)")
    ap.add_argument("--journal", default="", metavar="FILE", help="what is acknowledged (default: the first file's name and .journal)")
    ap.add_argument("--rejects", default="", metavar="FILE", help="refused lines, NDJSON (default: the journal's name and .rejects)")
    ap.add_argument("--connections", type=int, default=4, choices=range(1, 33), metavar="1-32", help="requests at once (default 4)")
    ap.add_argument("--patience", type=float, default=300, metavar="S", help="seconds without success before it gives up (default 300)")
    args = ap.parse_args()
    names = args.items + args.follows
    if not names:
        ap.error("nothing to move in: give --items or --follows")
    if names.count("-") > 1:
        ap.error("only one file can be the standard input")
    args.journal = args.journal or (names[0] if names[0] != "-" else "move-in") + ".journal"
    args.rejects = args.rejects or args.journal + ".rejects"
    return args


def catch_signals(stop):
    def interrupted(signum, _):
        if stop.is_set():
            os._exit(128 + signum)  # the second one: at once; the journal is as of a second ago
        print("\nmove-in: stopping when what is under way is answered; the same command goes on", file=sys.stderr, flush=True)
        stop.set()

    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)


def main():
    args = arguments()
    stop = threading.Event()
    catch_signals(stop)
    journal = None
    try:
        inputs = [Input("items", name) for name in args.items] + [Input("follows", name) for name in args.follows]
        for source in inputs:
            if not source.stream or not os.path.exists(source.name) and source.name != "-":
                source.open()  # what can't be read is told before anything is sent
                source.close()
        client = bulk_client.Client(args.url, bulk_client.read_key(args.key_file), args.patience, stop)
        journal = Journal(args.journal, args.rejects, args.url, inputs)
        return move(client, journal, inputs, args.connections)
    except Stopped:
        return 130
    except (Failed, OSError, EOFError, zlib.error) as problem:
        print(f"move-in: FAILED: {problem}", file=sys.stderr)
        return 2
    finally:
        if journal:
            journal.close()


if __name__ == "__main__":
    sys.exit(main())
