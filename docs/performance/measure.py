#!/usr/bin/env python3
"""Measures everything that docs/PERFORMANCE.md tells, with `eventlog-server bench`, and keeps it as JSON.

    cargo build --release
    docs/performance/measure.py            # everything: about ten minutes on two cores
    docs/performance/measure.py write idle # these scenarios only; the rest of the file stays
    docs/performance/plot.py               # the plots, from the JSON

Nothing else should run meanwhile. Needs `ulimit -n` above 10,100 for `idle`. Runs as root also empty the page cache
before a cold start, which is said in the JSON.
"""

import argparse
import json
import os
import pathlib
import platform
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NO_FLOORS = ["--floors", "none"]
COLD_START_ENTRIES = [100_000, 1_000_000, 3_000_000, 10_000_000]

# The scenarios that have target figures.
TABLE = {
    "write": ["write"],
    "write-one": ["write", "--connections", "1", "--in-flight", "1"],
    "ingest": ["ingest"],
    "catch-up": ["catch-up"],
    "fan-out": ["fan-out"],
    "many-stores": ["write", "--stores", "10000"],
    "idle": ["idle"],
    "duplicates": ["write", "--resend", "--count", "1000000", "--batch", "100", "--in-flight", "8"],
    "duplicates-one": ["write", "--resend", "--count", "1000000"],
    # 500,000 deliveries a second.
    "fan-out-steady": ["fan-out", "--rate", "50", "--floors", "none"],
}

# How cost grows: for each dimension, the scenario and the values of one flag.
GROWTH = {
    "stores": (["write"], "--stores", [1, 10, 100, 1_000, 10_000]),
    "subscribers": (["fan-out", "--connections", "1000"], "--subscribers", [1, 10, 100, 1_000, 4_000]),
    "payload": (["write"], "--payload", [10, 100, 1_000, 10_000, 100_000]),
    "ingest-payload": (["ingest", "--batch", "100"], "--payload", [10, 100, 1_000, 10_000]),
    "batch": (["write", "--in-flight", "16"], "--batch", [1, 10, 100, 1_000]),
    "rate": (["write"], "--rate", [1_000, 10_000, 50_000, 100_000, 200_000]),
    "entries": (["catch-up"], "--count", [10_000, 100_000, 1_000_000, 4_000_000]),
}
GROWTH_SECONDS = ["--duration", "4", "--warm-up", "1"]


class Measuring:
    def __init__(self, binary, directory, out):
        self.binary, self.directory, self.out = binary, directory, out
        self.figures = json.loads(out.read_text()) if out.exists() else {}

    def bench(self, *arguments):
        """One run; what it printed, with the command that did it."""
        command = [self.binary, "bench", *arguments, "--json", "--directory", self.directory]
        said = ["eventlog-server", "bench", *arguments]
        print(shlex.join(said), file=sys.stderr, flush=True)
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        if not ran.stdout:
            raise SystemExit(f"{shlex.join(said)} failed with {ran.returncode}")
        figures = {"command": shlex.join(said), **json.loads(ran.stdout)}
        if figures["faults"]:
            print(f"FAULTS: {figures['faults']}", file=sys.stderr)
        return figures

    def keep(self, name, figures):
        self.figures[name] = {"where": where(self.directory), "figures": figures}
        text = json.dumps(self.figures, indent=1, sort_keys=True)
        self.out.write_text(text + "\n")

    def table(self, name):
        self.keep(name, self.bench(*TABLE[name]))
        if name == "fan-out":
            # Then at half of the rate that was reached.
            rate = self.figures[name]["figures"]["acknowledged"]["messages_per_second"] / 2
            self.keep("fan-out-half", self.bench(*TABLE[name], "--rate", f"{rate:.0f}", *NO_FLOORS))

    def growth(self, name):
        command, flag, values = GROWTH[name]
        points = []
        for value in values:
            arguments = [*command, flag, str(value), *NO_FLOORS]
            if command[0] == "catch-up":
                arguments += ["--rounds", "3"]
            else:
                arguments += GROWTH_SECONDS
            if flag == "--subscribers":
                # No more connections than subscriptions.
                arguments[2] = str(min(value, 1_000))
            points.append({"value": value, **self.bench(*arguments)})
        self.keep(f"growth-{name}", points)

    def cold_start(self):
        """How a server starts on so many entries, and what writing and reading cost then."""
        points = []
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            data, filled = pathlib.Path(directory, "data"), 0
            for entries in COLD_START_ENTRIES:
                with Server(self.binary, data) as server:
                    self.bench("ingest", "--url", server.url, "--count", str(entries - filled))
                emptied = empty_page_cache()
                with Server(self.binary, data) as server:
                    ready = {"ready_seconds": server.ready_seconds, "page_cache_emptied": emptied}
                    memory = memory_bytes(server.process.pid)
                    count = 200_000
                    one = ["--connections", "1", "--in-flight", "1", "--count", "1"]
                    first = self.bench("write", "--url", server.url, *one)
                    writes = self.bench("write", "--url", server.url, "--count", str(count))
                    used = memory_bytes(server.process.pid)
                filled = entries + count + 1
                points.append({
                    "value": entries, **ready, "data_bytes": size(data),
                    "resident_bytes_ready": memory[0], "resident_bytes_max_ready": memory[1],
                    "resident_bytes_used": used[0], "resident_bytes_max_used": used[1],
                    "first_write_seconds": first["acknowledged"]["latency"]["p50"],
                    "write": writes["acknowledged"],
                })
        self.keep("cold-start", points)


class Server:
    """A server on a data directory; `ready_seconds` is from its start to its first answer that it is ready."""

    def __init__(self, binary, data):
        self.command = [binary, "serve", "--dev", "--data-dir", str(data), "--listen"]

    def __enter__(self):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}/eventlog"
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [*self.command, f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not is_ready(f"http://127.0.0.1:{port}/readyz"):
            if self.process.poll() is not None:
                raise SystemExit("the server did not start")
            time.sleep(0.002)
        self.ready_seconds = time.perf_counter() - started
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


def is_ready(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


def memory_bytes(pid):
    """What is resident now, and the most that was."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    of = lambda name: next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    return of("VmRSS:"), of("VmHWM:")


def size(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def empty_page_cache():
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")
        return True
    except OSError:
        return False


def where(directory):
    """Machine, version and date."""
    mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    above = [mount for mount in mounts if pathlib.Path(directory).is_relative_to(mount[1])]
    total = pathlib.Path("/proc/meminfo").read_text().split()[1]
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "commit": commit,
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "file_system": max(above, key=lambda mount: len(mount[1]))[2],
        "kernel": platform.release(),
        "memory_bytes": int(total) * 1024,
    }


def main():
    names = [*TABLE, "cold-start", *(f"growth-{name}" for name in GROWTH)]
    parser = argparse.ArgumentParser(description="Measures what docs/PERFORMANCE.md tells.")
    parser.add_argument("names", nargs="*", help=f"{', '.join(names)} [default: all]")
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "eventlog-server"))
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="on the disk to measure")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "figures.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    measuring = Measuring(arguments.binary, arguments.directory, arguments.out)
    for name in arguments.names or names:
        if name in TABLE:
            measuring.table(name)
        elif name == "cold-start":
            measuring.cold_start()
        else:
            measuring.growth(name.removeprefix("growth-"))


if __name__ == "__main__":
    main()
