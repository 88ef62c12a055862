"""What makes load, and what feed-api is compared with: wrk, open_load, nginx with files, redis-benchmark. Nothing here prints."""
import json
import os
import re
import shutil
import subprocess
import time

import world
from world import Failed

THREADS, CONNECTIONS = 2, 64  # of wrk
UNITS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}


class Clock:
    """Processor time of the stack, of more processes, and of the children waited for meanwhile (the load)."""

    def __init__(self, stack, pids=()):
        self.stack, self.pids = stack, pids
        self.before, self.began = self.look(), time.monotonic()

    def look(self):
        own, out = os.times(), self.stack.cpu()
        out["load"] = own.children_user + own.children_system + own.user + own.system
        for pid in self.pids:
            with open("/proc/%d/stat" % pid, encoding="utf-8") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            out["nginx"] = out.get("nginx", 0) + (int(fields[11]) + int(fields[12])) / world.TICK
        return out

    def stop(self):
        """({process: CPU seconds}, seconds)."""
        return world.spent(self.before, self.look()), time.monotonic() - self.began


def write_targets(path, targets):
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(t + "\n" for t in targets))
    return path


def wrk_command(port, path, key, seconds, header=""):
    return ["wrk", "-t%d" % THREADS, "-c%d" % CONNECTIONS, "-d%ds" % seconds, "--latency", "-s", world.HERE + "/walk.lua",
            "http://127.0.0.1:%d" % port, "--", path, key] + ([header] if header else [])


def wrk_text(what, header=""):
    """The command as it is printed."""
    return "wrk -t%d -c%d --latency -s tools/bench/walk.lua http://127.0.0.1:<port> -- <%s> <key>%s" % (
        THREADS, CONNECTIONS, what, " '%s'" % header if header else "")


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()
    return float(number) * UNITS[unit]


def read_wrk(out):
    """What wrk printed: {rate, requests, p50, p99 (ms), bytes a second}. Failed when an answer was none."""
    bad = re.search(r"(Non-2xx or 3xx responses: \d+|Socket errors: .*)", out)
    done = re.search(r"(\d+) requests in", out)
    if bad or not done or not int(done.group(1)):
        raise Failed("wrk: " + (bad.group(1) if bad else out[-500:]))
    percent = dict(re.findall(r"^\s+(\d+)%\s+(\S+)$", out, re.M))
    return {"requests": int(done.group(1)), "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
            "p50": milliseconds(percent["50"]), "p99": milliseconds(percent["99"])}


def wrk(port, path, key, seconds, header=""):
    done = subprocess.run(wrk_command(port, path, key, seconds, header), capture_output=True, text=True,
                          preexec_fn=world.end_with_parent, timeout=seconds + 60)
    return read_wrk(done.stdout or done.stderr)


def ahead_of_others():
    """In a child before exec: it gets the processor when it is due, where that is allowed. It can't measure how late others
    are while it is late itself; what it takes, the server lacks."""
    world.end_with_parent()
    try:
        os.nice(-10)
    except PermissionError:
        pass


def open_load_command(port, path, rate, settle, seconds, connections, seed):
    return [world.BINARIES + "/open_load", "--port", str(port), "--requests", path, "--rate", "%.0f" % rate, "--settle", str(settle),
            "--seconds", str(seconds), "--connections", str(connections), "--seed", str(seed)]


def open_load_text(rate, connections):
    return "open_load --requests <readers> --rate <%s> --connections %d" % (rate, connections)


def open_load(port, path, key, rate, settle, seconds, connections, seed):
    """Requests at random moments at a rate; see tools/main_open_load.c for what is answered."""
    done = subprocess.run(open_load_command(port, path, rate, settle, seconds, connections, seed), capture_output=True, text=True,
                          preexec_fn=ahead_of_others, timeout=settle + seconds + 60, env=dict(os.environ, FEEDMILL_BEARER=key))
    if done.returncode:
        raise Failed(done.stderr.strip() or "open_load failed")
    return json.loads(done.stdout)


def zrange_command(socket, keys, requests):
    return ["redis-benchmark", "-s", socket, "-n", str(requests), "-r", str(keys), "-c", "50", "-P", "16", "--csv",
            "ZRANGE", "bench:__rand_int__", "0", "19"]


def zrange(stack, keys, requests):
    """Calls a second."""
    out = subprocess.run(zrange_command(stack.socket_path, keys, requests), capture_output=True, text=True, timeout=120,
                         preexec_fn=world.end_with_parent, check=True).stdout
    return float(out.strip().splitlines()[-1].split('","')[1])


class Nginx:
    """Serves files: {path: bytes}. As fast as it can be made: no log, open files kept, a worker a core."""

    def __init__(self, stack, files):
        self.dir = stack.dir + "/nginx"
        self.port = world.free_port()
        binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:.deps/nginx/usr/sbin")
        if not binary:
            raise Failed("there is no nginx: make bench-pages installs it")
        os.makedirs(self.dir + "/tmp")
        os.chmod(stack.dir, 0o755)  # its workers may be another user
        for path, data in files.items():
            os.makedirs(self.dir + "/files" + os.path.dirname(path), exist_ok=True)
            with open(self.dir + "/files" + path, "wb") as f:
                f.write(data)
        with open(self.dir + "/nginx.conf", "w", encoding="utf-8") as f:
            f.write(self.configuration())
        self.process = subprocess.Popen([binary, "-p", self.dir, "-c", "nginx.conf", "-e", "error.log"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=world.end_with_parent)
        self.wait()

    def configuration(self):
        temporary = "".join("  %s_temp_path tmp/%s;\n" % (x, x) for x in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return (
            "daemon off;\n%sworker_processes %d;\npid nginx.pid;\n"
            "events { worker_connections 4096; }\n"
            "http {\n%s  access_log off;\n  default_type application/json;\n  sendfile on;\n  tcp_nopush on;\n"
            "  keepalive_timeout 600;\n  keepalive_requests 1000000000;\n"
            "  open_file_cache max=20000 inactive=600s;\n  open_file_cache_valid 600s;\n"
            "  server {\n    listen 127.0.0.1:%d reuseport;\n    root files;\n  }\n}\n"
            % ("user root;\n" if os.geteuid() == 0 else "", os.cpu_count(), temporary, self.port))

    def said(self):
        try:
            with open(self.dir + "/error.log", encoding="utf-8") as f:
                return f.read()[-1000:]
        except OSError:
            return ""

    def wait(self):
        until = time.monotonic() + 10
        while True:
            try:
                world.socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > until:
                self.end()
                raise Failed("nginx does not start: " + self.said())
            time.sleep(0.02)

    def pids(self):
        """Of the workers too."""
        path = "/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)
        with open(path, encoding="utf-8") as f:
            return [self.process.pid] + [int(x) for x in f.read().split()]

    def end(self):
        world.end_process(self.process, 6)
