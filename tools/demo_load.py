#!/usr/bin/env python3
"""Fill a feedmill with real data: the changelogs of the Debian packages that are installed on this machine.

A package is a publisher, an entry of its changelog is an item (title, text, its date as published_at, the package's
section and the entry's urgency as topics), and for each package there is a reader "user-of-<package>", who follows the
package and what it depends on. Where an image was stripped of its changelogs, the descriptions of the packages that
apt knows take their place.

Everything goes through the public HTTP API in bulk requests. It may be stopped at any time and started again: an item is known
by its publisher and version, so nothing is stored twice, and packages that were finished are skipped.
"""
import argparse
import collections
import concurrent.futures
import email.utils
import glob
import gzip
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.parse

from bulk_client import FOLLOWS, ITEMS, Client, Failed, read_key

LINES_PER_REQUEST = 500  # of at most 1,000
BYTES_PER_REQUEST = 4 << 20  # of at most 8 MiB
BODY_MAX = 65536
TITLE_MAX = 512
HEADER = re.compile(r"^(\S+) \(([^)]+)\)([^;]*);\s*(.*)$")
TRAILER = re.compile(r"^ -- .*?>  ?(.*)$")

Package = collections.namedtuple("Package", "name section summary depends")


def cut(text, limit):
    """The longest start of text that takes at most limit bytes in UTF-8."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= limit else data[:limit].decode("utf-8", "ignore")


def installed_packages():
    fmt = "${Package}\t${Section}\t${binary:Summary}\t${Depends}, ${Pre-Depends}\t${db:Status-Status}\n"
    out = subprocess.run(["dpkg-query", "-W", "-f", fmt], check=True, capture_output=True, text=True).stdout
    packages = {}
    for line in out.splitlines():
        name, section, summary, depends, status = (line.split("\t") + [""] * 5)[:5]
        if status == "installed":
            packages[name] = Package(name, section or "unknown", summary, dependencies(depends))
    return packages


def dependencies(text):
    """The names in a Depends field: "a (>= 1), b | c:any" gives a, b, c."""
    names = []
    for part in re.split(r"[,|]", text):
        name = part.strip().split(" ")[0].split(":")[0]
        if name and name not in names:
            names.append(name)
    return names


def topic(word):
    return re.sub(r"[\s/{}]", "-", word)[:64]


def changelog_items(package, path):
    """The entries of one changelog, newest first, as items; entries that can't be read are left out."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as f:
            lines = f.read().replace("\0", "").split("\n")
    except (OSError, EOFError):
        return
    head, body = None, []
    for line in lines:
        start = HEADER.match(line)
        if start:
            head, body = start, []
            continue
        end = TRAILER.match(line)
        if end and head:
            item = changelog_item(package, head, body, end.group(1))
            if item:
                yield item
            head = None
        elif head:
            body.append(line)


def changelog_item(package, head, body, date):
    try:
        when = email.utils.parsedate_to_datetime(date.strip()).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if when < 0 or when > time.time():
        return None
    source, version, suite, options = head.groups()
    urgency = re.search(r"urgency=(\w+)", options)
    topics = [topic(package.section)]
    if urgency:
        topics.append("urgency-" + urgency.group(1).lower())
    return {
        "publisher": package.name,
        "external_id": cut(version, 256),
        "title": cut(f"{source} {version} ({suite.strip() or 'unreleased'})", TITLE_MAX),
        "body": cut("\n".join(body).strip("\n"), BODY_MAX),
        "topics": topics,
        "lang": "en",
        "published_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when)),
    }


def described_packages(limit):
    """Where there are no changelogs: what apt knows of packages, one item each."""
    out = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, errors="replace", check=False).stdout
    for stanza in out.split("\n\n")[:limit]:
        field = dict(re.findall(r"^([A-Z][\w-]*): (.*(?:\n .*)*)", stanza, re.M))
        if "Package" not in field or "Version" not in field:
            continue
        summary, _, text = (field.get("Description-en") or field.get("Description") or "").partition("\n")
        package = Package(field["Package"], field.get("Section", "unknown"), summary, dependencies(field.get("Depends", "")))
        item = {
            "publisher": package.name,
            "external_id": cut(field["Version"], 256),
            "title": cut(f"{package.name} {field['Version']}: {summary}", TITLE_MAX),
            "body": cut(text or summary, BODY_MAX),
            "topics": [topic(package.section)],
            "lang": "en",
        }
        yield package, [item]


class Progress:
    def __init__(self, total):
        self.total, self.done, self.bad, self.start, self.shown = total, 0, 0, time.monotonic(), 0.0
        self.tty = sys.stdout.isatty()
        self.lock = threading.Lock()

    def add(self, n, bad):
        with self.lock:
            self.done += n
            self.bad += bad
            if time.monotonic() - self.shown > (0.2 if self.tty else 2.0):
                self.show()

    def show(self, last=False):
        self.shown = time.monotonic()
        rate = self.done / max(self.shown - self.start, 1e-3)
        eta = "" if last else f", {(self.total - self.done) / max(rate, 1):.0f} s to go"
        text = f"demo: {self.done} of {self.total} items, {rate:.0f} a second{eta}"
        print(("\r\033[K" if self.tty else "") + text, end="\n" if last or not self.tty else "", flush=True)


class State:
    """Which packages are finished; a file that is replaced whole."""

    def __init__(self, path):
        self.path, self.lock, self.finished = path, threading.Lock(), {}
        try:
            with open(path, encoding="utf-8") as f:
                self.finished = json.load(f)["finished"]
        except (OSError, TypeError, ValueError, KeyError):
            pass

    def save(self, counts=()):
        with self.lock:
            self.finished.update(counts)
            if self.path:
                with open(self.path + ".new", "w", encoding="utf-8") as f:
                    json.dump({"finished": self.finished}, f)
                os.replace(self.path + ".new", self.path)


def collect(limit):
    """[(package, items)] of everything that the machine has."""
    packages = installed_packages()
    found = []
    for path in sorted(glob.glob("/usr/share/doc/*/changelog.Debian.gz")):
        package = packages.get(os.path.basename(os.path.dirname(path)))
        if package:
            items = list(changelog_items(package, path))
            if items:
                found.append((package, items))
        if limit and sum(len(i) for _, i in found) >= limit:
            break
    if not found:
        print("demo: this machine has no changelogs; taking the package descriptions that apt knows", flush=True)
        found = list(described_packages(limit or 5000))
    return found


def bulk(client, path, objects):
    """Sends objects as lines; answers (good, bad, first problem). What was deleted here stays deleted, and counts as good."""
    lines = [json.dumps(o, ensure_ascii=False).encode("utf-8", "replace") for o in objects]
    refused = [answer for _, answer in client.bulk(path, lines)[1] if answer["status"] != 410]
    return len(lines) - len(refused), len(refused), refused[0] if refused else None


def load_readers(client, found):
    """A reader for each package, who follows it and what it depends on. Answers {reader: items to read}."""
    known = {p.name: len(items) for p, items in found}
    edges, worth = [], {}
    for package, _ in found:
        reader = "user-of-" + package.name[:55]
        follows = [package.name] + [d for d in package.depends if d in known]
        worth[reader] = sum(known[f] for f in follows)
        edges += [{"user": reader, "kind": "publisher", "name": f} for f in follows]
    for at in range(0, len(edges), 5000):
        bulk(client, FOLLOWS, edges[at : at + 5000])
    print(f"demo: {len(worth)} readers with {len(edges)} follows", flush=True)
    return worth


def batches(found, finished):
    """Requests of whole packages where they fit: ([items], {package: count finished by it})."""
    items, size, done = [], 0, {}
    for package, entries in found:
        if finished.get(package.name) == len(entries):
            continue
        for i, item in enumerate(entries):
            weight = len(item["body"].encode("utf-8", "replace")) * 2 + 1000
            if items and (len(items) >= LINES_PER_REQUEST or size + weight > BYTES_PER_REQUEST):
                yield items, done
                items, size, done = [], 0, {}
            items.append(item)
            size += weight
            if i == len(entries) - 1:
                done[package.name] = len(entries)
    if items:
        yield items, done


def load_items(client, found, state, threads):
    todo = list(batches(found, state.finished))
    progress = Progress(sum(len(items) for items, _ in todo))
    parts = {}  # a package may be spread over requests: it is finished when the last one and those before it are
    stop = threading.Event()

    def send(batch):
        if stop.is_set():
            return
        items, done = batch
        good, bad, first = bulk(client, ITEMS, items)
        if first and not progress.bad:
            print(f"\ndemo: line refused: {json.dumps(first)[:300]}", flush=True)
        progress.add(good, bad)
        parts.update(done if bad == 0 else {})

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        try:
            # in waves, so that what is noted as finished has nothing outstanding before it
            for at in range(0, len(todo), threads * 2):
                list(pool.map(send, todo[at : at + threads * 2]))
                state.save(parts)
        except BaseException:
            stop.set()
            raise
    progress.show(last=True)
    return progress


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--url", default="http://127.0.0.1:8080", help="where feedmill answers (default %(default)s)")
    ap.add_argument("--key-file", default="run/admin.key", help="file with an admin key (default %(default)s)")
    ap.add_argument("--state", default="", help="file that remembers what is finished (default: none)")
    ap.add_argument("--reader-file", default="", help="file to write the name of a reader worth looking at into")
    ap.add_argument("--max-items", type=int, default=0, help="stop collecting after so many items (default 0: all)")
    ap.add_argument("--threads", type=int, default=4, choices=range(1, 17), metavar="1-16", help="requests at once (default 4)")
    args = ap.parse_args()
    client = Client(args.url, read_key(args.key_file), patience=60.0)
    print("demo: reading the changelogs of this machine's packages", flush=True)
    found = collect(args.max_items)
    if not found:
        sys.exit("demo: neither changelogs nor package descriptions were found on this machine")
    state = State(args.state)
    if state.finished == {p.name: len(items) for p, items in found}:
        print(f"demo: everything is there already ({len(found)} publishers)", flush=True)
        return
    worth = load_readers(client, found)
    if args.reader_file:
        # one with a middling number of follows reads better than the one who follows everything
        ranked = sorted(worth, key=worth.get)
        with open(args.reader_file, "w", encoding="utf-8") as f:
            f.write(ranked[len(ranked) * 9 // 10] + "\n")
    progress = load_items(client, found, state, args.threads)
    for package, _ in found:
        body = json.dumps({"title": cut(package.summary or package.name, 200)}, ensure_ascii=False).encode()
        client.call("PUT", "/v1/publishers/" + urllib.parse.quote(package.name, safe=""), body)
    print(f"demo: done, {len(found)} publishers, {progress.done} items, {progress.bad} refused", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ndemo: stopped; start it again to go on")
    except Failed as problem:
        sys.exit(f"demo: {problem}")
