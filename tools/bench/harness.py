"""What the benches with worlds share: options, rounds that an interruption may cut short, and the end with table and JSON."""
import argparse
import contextlib
import http.client
import os
import signal
import subprocess

import world
from report import Report

TROUBLE = (world.Failed, OSError, http.client.HTTPException, subprocess.SubprocessError)


class Bench:
    def __init__(self, o):
        self.rounds, self.quick, self.only = o.rounds, o.quick, o.only
        self.report = Report()
        self.stack = self.trouble = None

    def size(self, full, quick):
        return quick if self.quick else full

    def wants(self, letters):
        return any(x in self.only for x in letters)

    @contextlib.contextmanager
    def turns(self):
        """Around the rounds of a job: when they end early, the job still reports those it has; then it ends."""
        try:
            yield
        except (KeyboardInterrupt, *TROUBLE) as e:
            self.trouble = e

    def end_world(self):
        if self.stack:
            self.stack.end()
            self.stack = None


def options(doc, letters):
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS") or 0), help="5; 2 when quick")
    p.add_argument("--quick", action="store_true", default=os.environ.get("QUICK", "") not in ("", "0"))
    p.add_argument("--only", default=os.environ.get("ONLY") or letters, help="letters of the list above")
    o = p.parse_args()
    o.only = "".join(x for x in o.only.upper() if x.isalpha())
    if set(o.only) - set(letters):
        p.error("--only: letters of %s" % letters)
    o.rounds = o.rounds or (2 if o.quick else 5)
    return o


def run(b, out):
    """b.run() to its end, to Ctrl-C or to what stops it; answers the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    complete, rc = False, 0
    try:
        b.run()
        complete = True
    except KeyboardInterrupt:
        print("\ninterrupted: what follows is what was measured until now")
        rc = 130
    except TROUBLE as e:
        print("\nFAILED: %s" % e)
        if b.stack:
            print("\n".join(b.stack.story()))
        rc = 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        b.end_world()
    b.report.commands()
    b.report.verdict()
    b.report.write(out, complete)
    return rc
