#!/usr/bin/env python3
"""Writes the figures that measure.py kept into docs/PERFORMANCE.md and docs/dev/PERFORMANCE-NOTES.md, between their markers."""

import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
PAGE, NOTES = HERE.parent / "PERFORMANCE.md", HERE.parent / "dev" / "PERFORMANCE-NOTES.md"
SUMMARY = "<!-- summary: written by performance/table.py -->", "<!-- end of summary -->"
FIGURES = "<!-- figures: written by performance/table.py -->", "<!-- end of figures -->"
KIB = 1024


def count(number):
    return f"{number:,.0f}"


def percent(share):
    return f"{100 * share:.0f}%"


def seconds(duration):
    for size, unit in [(1, "s"), (1e-3, "ms")]:
        if duration >= size:
            return f"{duration / size:.3g} {unit}"
    return f"{duration * 1e6:.0f} µs"


def latency(run, what="acknowledged"):
    of = run[what]["latency"]
    return ", ".join(f"{name} {seconds(of[name])}" for name in ["p50", "p99", "p99.9"])


def cpu(run):
    return f"server {count(run['server']['cpu_nanos_per_entry'])} ns of CPU each"


def echo(run):
    return f"echo {count(run['floor_echo']['messages_per_second'])} messages/s: **{percent(run['of_echo'])}**"


def storage(run):
    return f"storage alone {count(run['floor_storage_per_second'])}/s: **{percent(run['of_storage'])}**"


def syncs(run):
    fdatasync, sync = (seconds(run[f"floor_{name}"]["p50"]) for name in ["fdatasync", "sync"])
    return f"fdatasync {fdatasync}, the server's sync {sync}"


def entries(run):
    return run["acknowledged"]["entries_per_second"]


def write(run, all_):
    told = f"{count(entries(run))} acked writes/s; {latency(run)}; {cpu(run)}"
    targets = [
        ("50% of echo", run["of_echo"] >= 0.5),
        ("above 100,000/s", entries(run) > 100_000),
    ]
    return told, f"{echo(run)}; {storage(run)}; {syncs(run)}", targets


def write_one(run, all_):
    told = f"{latency(run)}; {count(entries(run))} writes/s"
    floors = f"{syncs(run)}: p50 **{run['p50_of_one_sync']:.2f} times** it; {storage(run)}"
    return told, floors, [("p50 within 1.5 syncs", run["p50_of_one_sync"] <= 1.5)]


def ingest(run, all_):
    told = f"{count(entries(run))} durable entries/s; {latency(run)} a batch; {cpu(run)}"
    targets = [
        ("70% of storage alone", run["of_storage"] >= 0.7),
        ("above 700,000/s", entries(run) > 700_000),
    ]
    return told, f"{storage(run)}; {echo(run)}", targets


def catch_up(run, all_):
    best = run["entries_per_second"]
    told = f"{count(best)} entries/s, the best of three rounds; filled with {count(run['fill_per_second'])}/s"
    return told, storage(run), [("above 2,000,000/s", best > 2_000_000)]


def fan_out(run, all_):
    deliveries = run["delivered"]["entries_per_second"]
    told = f"{count(deliveries)} deliveries/s; {latency(run, 'delivered')}; {cpu(run)}"
    return told, echo(run), [("above 1,000,000/s", deliveries > 1_000_000)]


def fan_out_half(run, all_):
    deliveries = run["delivered"]["entries_per_second"]
    told = f"{count(deliveries)} deliveries/s; {latency(run, 'delivered')}"
    return told, "", [("p99 below 50 ms", run["delivered"]["latency"]["p99"] < 0.05)]


def many_stores(run, all_):
    share = entries(run) / entries(all_["write"]["figures"])
    told = f"{count(entries(run))} acked writes/s; {latency(run)}; {cpu(run)}"
    floors = f"one store: **{percent(share)}**; {storage(run)}"
    return told, floors, [("60% of one store", share >= 0.6)]


def idle(run, all_):
    each = run["bytes_per_connection"]
    echo_each = run["floor_echo_bytes_per_connection"]
    floors = f"echo {echo_each / KIB:.2f} KiB: **{run['of_echo']:.2f} times**"
    return f"{each / KIB:.2f} KiB each", floors, [("below 12 KiB", each < 12 * KIB)]


def duplicates(run, all_):
    growth = run["disk_growth_bytes"]
    told = f"{count(entries(run))} entries/s, disk growth {count(growth)} bytes; {cpu(run)}"
    targets = [("above 500,000/s", entries(run) > 500_000), ("no growth", growth < entries(run) / 100)]
    return told, f"{storage(run)}; {echo(run)}", targets


def cold_start(runs, all_):
    run = runs[-1]
    resident = max(run["resident_bytes_max_ready"], run["resident_bytes_max_used"]) / KIB / KIB
    told = (
        f"ready after {seconds(run['ready_seconds'])}, first write {seconds(run['first_write_seconds'])}, "
        f"at most {resident:.0f} MiB with 200,000 writes after it"
    )
    emptied = "page cache emptied before" if run["page_cache_emptied"] else "page cache warm"
    targets = [("ready within 1 s", run["ready_seconds"] <= 1), ("below 300 MiB", resident < 300)]
    return told, f"{run['data_bytes'] / KIB**3:.1f} GiB of data; {emptied}", targets


ROWS = {
    "write": ("`write`: 16 connections, 64 in flight, one entry a batch", write),
    "write-one": ("`write`: 1 connection, 1 in flight", write_one),
    "ingest": ("`ingest`: 4 connections, 1,000 entries a batch", ingest),
    "catch-up": ("`catch-up`: one reader, 1,000,000 entries", catch_up),
    "fan-out": ("`fan-out`: 1,000 subscribers, 10 entries a batch", fan_out),
    "fan-out-half": ("the same at half that rate", fan_out_half),
    "fan-out-steady": ("the same at 500,000 deliveries/s", fan_out_half),
    "many-stores": ("`write`: 10,000 stores in turn", many_stores),
    "idle": ("`idle`: 10,000 connections with a subscription", idle),
    "duplicates": ("everything sent again, 100 entries a batch", duplicates),
    "duplicates-one": ("everything sent again, one entry a batch", duplicates),
    "cold-start": ("cold start on 10,000,000 entries", cold_start),
}


def rows(figures):
    yield "| scenario | measured | reference | target |\n| --- | --- | --- | --- |"
    for name, (title, tell) in ROWS.items():
        if name in figures:
            told, floors, targets = tell(figures[name]["figures"], figures)
            reached = "; ".join(f"{text}: {'yes' if met else '**no**'}" for text, met in targets)
            yield f"| {title} | {told} | {floors} | {reached} |"
    yield "\nThe commands:\n\n<!-- not run: takes minutes -->\n```sh"
    for name in ROWS:
        run = figures.get(name, {}).get("figures", {})
        if isinstance(run, dict) and run:
            yield run["command"]
    yield "docs/performance/measure.py cold-start\n```"


def places(figures):
    """Machine, commit and date of each measurement, said once if they are all the same."""
    told, machines = {}, {}
    for kept in figures.values():
        # A file whose run does not name a machine gets the machine of the same day.
        for run in runs(kept):
            if "machine" in run:
                machines[kept["where"]["date"]] = run["machine"]
    for name, kept in figures.items():
        where = kept["where"]
        machine = machines[where["date"]]
        text = (
            f"{where['date']}, commit {where['commit']}: {machine}, "
            f"{where['memory_bytes'] / KIB**3:.0f} GiB, {where['file_system']}"
        )
        told.setdefault(text, []).append(name)
    if len(told) == 1:
        return f"{next(iter(told))}."
    return "\n".join(f"* {text} ({', '.join(sorted(names))})" for text, names in told.items())


def runs(kept):
    found = kept["figures"]
    return found if isinstance(found, list) else [found]


def summary(figures):
    """What someone who chooses a server wants to know, each line with its command."""
    of = {name: kept["figures"] for name, kept in figures.items()}
    write, one, read, fan_out = (of[name] for name in ["write", "write-one", "catch-up", "fan-out"])
    ready, each = of["cold-start"][-1]["ready_seconds"], of["idle"]["bytes_per_connection"]

    def by(run):
        return f"(`{run['command'].removeprefix('eventlog-server ')}`)"

    def times(run, what="acknowledged"):
        return ", ".join(f"{name} {seconds(run[what]['latency'][name])}" for name in ["p50", "p99"])

    yield f"* **Small writes**: {count(entries(write))} durable writes/s of one entry over 16 connections, {times(write)} {by(write)}."
    yield f"  One client that waits for each ack: {count(entries(one))} writes/s, {times(one)} {by(one)}."
    yield f"* **Large writes**: {count(entries(of['ingest']))} durable entries/s in batches of 1,000 {by(of['ingest'])}."
    yield f"* **Reads**: {count(read['entries_per_second'])} entries/s for one reader {by(read)}."
    yield f"  {count(fan_out['delivered']['entries_per_second'])} deliveries/s to 1,000 subscribers, {times(fan_out, 'delivered')} {by(fan_out)}."
    yield f"* **Memory**: {each / KIB:.2f} KiB for each of 10,000 idle connections with a subscription {by(of['idle'])}."
    yield f"* **Start**: ready in {seconds(ready)} on 10,000,000 entries (`docs/performance/measure.py cold-start`)."
    yield "\n" + places({name: kept for name, kept in figures.items() if name in ROWS})


def put(page, marks, text):
    """Writes the text between the two marks of the page."""
    told = page.read_text()
    before, rest = told.split(marks[0])
    _, after = rest.split(marks[1])
    page.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}")


def main():
    figures = json.loads((HERE / "figures.json").read_text())
    put(PAGE, SUMMARY, "\n".join(summary(figures)))
    put(NOTES, FIGURES, places(figures) + "\n\n" + "\n".join(rows(figures)))


if __name__ == "__main__":
    main()
