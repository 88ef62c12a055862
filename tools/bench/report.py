"""What was measured: rows as run.sh writes them, then the ratios with what they should be; as a table and as JSON."""
import json
import os
import platform
import statistics
import time


def machine():
    cpu = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo", encoding="utf-8") as f:
        memory = int(f.readline().split()[1]) // 1024
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_mib": memory, "kernel": platform.release(),
            "load_before": [round(x, 2) for x in os.getloadavg()], "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def quantile(values, q):
    """Of a list, the value below which q of it lies; None of an empty one."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))] if values else None


class Report:
    def __init__(self):
        self.machine, self.rows, self.notes = machine(), [], []
        print("%(cpu)s, %(cores)d cores, %(memory_mib)d MiB, Linux %(kernel)s, load %(load_before)s" % self.machine)

    def title(self, text):
        print("\n" + text, flush=True)

    def note(self, text):
        self.notes.append(text)
        print("  " + text, flush=True)

    def row(self, figure, unit, command, values, at_least=None, at_most=None):
        """A figure with its rounds. With a limit it is one that the issue asks for, judged by its median."""
        values = [v for v in values if v is not None]
        if not values:
            return None
        median = statistics.median(values)
        row = {"figure": figure, "unit": unit, "min": min(values), "median": median, "max": max(values),
               "runs": len(values), "command": command}
        asked = ""
        if at_least is not None:
            row.update(asked="at least %g" % at_least, met=median >= at_least)
        if at_most is not None:
            row.update(asked="at most %g" % at_most, met=median <= at_most)
        if "met" in row:
            asked = "  %s, asked: %s" % ("met" if row["met"] else "MISSED", row["asked"])
        self.rows.append(row)
        print("%-66s %10s %-12s (min %.6g, max %.6g, %d runs)%s" %
              (figure, "%.6g" % median, unit, row["min"], row["max"], row["runs"], asked), flush=True)
        return median

    def commands(self):
        self.title("commands")
        for c in dict.fromkeys(r["command"] for r in self.rows):
            print("  " + c)

    def verdict(self):
        asked = [r for r in self.rows if "met" in r]
        if asked:
            self.title("what was asked for")
        for r in asked:
            print("%-7s %-66s %10.6g %-8s %s" % ("met" if r["met"] else "MISSED", r["figure"], r["median"], r["unit"], r["asked"]))

    def write(self, path, complete):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "w", encoding="utf-8") as f:
            json.dump({"machine": self.machine, "complete": complete, "figures": self.rows, "notes": self.notes}, f, indent=1)
            f.write("\n")
        os.replace(path + ".new", path)
        print("also in " + path)
