#!/usr/bin/env node
// Checks that the server stays stable over a long time: with 60% of its maximum load, in 512 MiB, with stores that come and go, and
// one that grows. Reports how memory, descriptors, threads, disk and latency change over time.
//
//   node bench/endurance.mjs [--binary FILE] [--directory DIR] [--minutes N] [--share N] [--memory MIB] [--cores N] [--rate N]
//                            [--payload N]
//
// The load comes in rounds of a minute. In each round, one generator writes to new stores, another one to the store of all rounds, and
// a third one to a store with subscribers, whose connections end with the round. `[[retention]]` trims everything older than five
// minutes, so that the stores of earlier rounds are removed. The archive is limited, and an unused store is closed after ten seconds.
// The rest grows for a reason, and the report says how fast.
//
// The limits of memory and of processor time (a part of a core, as containers have) need root and cgroups. That of memory includes the
// kernel's caches. If there is no limit, the report says so. Every sample is a line of DIR/samples.csv. Needs Linux and node.

import { spawn } from "node:child_process"
import fs from "node:fs"
import path from "node:path"
import readline from "node:readline"
import { parseArgs } from "node:util"

const root = path.resolve(import.meta.dirname, "..")
const { values: options } = parseArgs({
  options: {
    binary: { type: "string", default: path.join(root, "target/release/eventlog-server") },
    directory: { type: "string", default: path.join(root, "target/endurance") },
    minutes: { type: "string", default: "60" },
    // The load, in percent of the maximum.
    share: { type: "string", default: "60" },
    memory: { type: "string", default: "512" },
    // Processor time of the server, in cores. No limit without it.
    cores: { type: "string" },
    // Writes per second instead of a share.
    rate: { type: "string" },
    payload: { type: "string", default: "100" }
  }
})
const TOKEN = "only-for-this-benchmark"
const ROUND_SECONDS = 60
const SAMPLE_MILLIS = 5_000
// Earlier samples are not part of a slope: caches fill, and the first stores are not trimmed yet.
const SETTLED_SHARE = 0.25
const STORES = 200
const SUBSCRIBERS = 50
// The part of the writes that goes to the growing store.
const GROWING_SHARE = 0.1
// Batches per second for the subscribers, with ten entries each.
const FAN_OUT_RATE = 20
// The run ends early if the disk has less free space than this.
const DISK_LEFT_BYTES = 6 * 1024 ** 3

// The settings of docs/OPERATIONS.md for a container with 512 MiB.
const config = `
ballast_bytes = "0"
cache_bytes = "32MiB"
[log]
level = "warn"
[auth]
mode = "allow-all"
[admin]
token = "${TOKEN}"
[archive]
bytes_max = "1GiB"
[[retention]]
stores = "bench-*"
age_max = "5m"
[limits]
store_idle_timeout = "10s"
write_bytes_in_flight_total_max = "32MiB"
unfinished_bytes_total_max = "48MiB"
compaction_bytes_max = "32MiB"
`

const PERIOD_MICROS = 100_000

// What each cgroup of the server is limited to: of version 2 one for both, of version 1 one for each.
const limits = () => {
  const memory = String(Number(options.memory) * 1024 * 1024)
  const quota = options.cores === undefined ? null : Math.round(Number(options.cores) * PERIOD_MICROS)
  const own = `eventlog-endurance-${process.pid}`
  const at = (controller, files) => ({ group: path.join("/sys/fs/cgroup", controller, own), files })
  if (!fs.existsSync("/sys/fs/cgroup/memory")) {
    return [at("", { "memory.max": memory, ...(quota && { "cpu.max": `${quota} ${PERIOD_MICROS}` }) })]
  }
  const processor = quota && at("cpu", { "cpu.cfs_period_us": String(PERIOD_MICROS), "cpu.cfs_quota_us": String(quota) })
  return [at("memory", { "memory.limit_in_bytes": memory }), ...(processor ? [processor] : [])]
}

// The cgroups of the server, made and limited. Empty if that is not possible.
const bound = () => {
  try {
    return limits().map(({ group, files }) => {
      fs.mkdirSync(group)
      for (const [file, value] of Object.entries(files)) fs.writeFileSync(path.join(group, file), value)
      return group
    })
  } catch (error) {
    console.error(`memory and processor time are not bounded: ${error.message}`)
    return []
  }
}

const start = (groups) =>
  new Promise((resolve, reject) => {
    fs.rmSync(options.directory, { recursive: true, force: true })
    fs.mkdirSync(options.directory, { recursive: true })
    const file = path.join(options.directory, "eventlog.toml")
    fs.writeFileSync(file, config, { mode: 0o600 })
    const data = path.join(options.directory, "data")
    const join = groups.map((group) => `echo $$ > ${group}/cgroup.procs && `).join("")
    const args = ["serve", "--dev", "--config", file, "--data-dir", data, "--listen", "127.0.0.1:0"]
    const server = spawn("sh", ["-c", `${join}exec "$0" "$@"`, options.binary, ...args], { stdio: ["ignore", "pipe", "inherit"] })
    server.once("exit", (code, signal) => {
      if (isStopping) return
      if (samples.length > 0) report(samples)
      console.error(`the server ended: ${code ?? signal}${signal === "SIGKILL" ? ", which is what the kernel does when memory is used up" : ""}`)
      process.exit(1)
    })
    readline.createInterface({ input: server.stdout }).on("line", (line) => {
      const port = line.match(/ws:\/\/[^/]*:(\d+)/)?.[1]
      if (port) resolve({ server, data, url: `ws://127.0.0.1:${port}/eventlog`, http: `http://127.0.0.1:${port}` })
    })
    server.once("error", reject)
  })

let isStopping = false
const samples = []
const { EVENTLOG_ADMIN_TOKEN: _, ...withoutToken } = process.env
// Runs a generator until it ends, and returns its report.
const load = (scenario, url, args, token) =>
  new Promise((resolve) => {
    const all = ["bench", scenario, "--url", url, "--floors", "none", "--json", "--payload", options.payload, ...args]
    const env = token ? { ...withoutToken, EVENTLOG_ADMIN_TOKEN: TOKEN } : withoutToken
    const generator = spawn(options.binary, all, { stdio: ["ignore", "pipe", "pipe"], env })
    let [text, said] = ["", ""]
    generator.stdout.on("data", (some) => (text += some))
    generator.stderr.on("data", (some) => (said += some))
    generator.once("exit", (code) => {
      if (code !== 0) {
        faults += 1
        console.error(`bench ${scenario} ended with ${code}: ${text}${said}`)
      }
      resolve(code === 0 ? JSON.parse(text) : null)
    })
  })
let faults = 0

const during = (seconds) => ["--duration", String(seconds), "--warm-up", "0"]
const perSecond = (report) => report?.acknowledged?.entries_per_second ?? 0

// Runs one round. Returns the acknowledged writes per second, and the 99th percentile of the acks of the growing store.
const round = async ({ url }, rate, seconds) => {
  const rated = (share) => (rate === undefined ? [] : ["--rate", String(Math.round(rate * share))])
  const many = ["--stores", String(STORES), ...during(seconds)]
  const [coming, growing] = await Promise.all([
    load("write", url, [...many, ...rated(1 - GROWING_SHARE)], true),
    load("write", url, [...during(seconds), ...rated(GROWING_SHARE)], false),
    load("fan-out", url, ["--subscribers", String(SUBSCRIBERS), "--rate", String(FAN_OUT_RATE), ...during(seconds)], true)
  ])
  return { writes: perSecond(coming) + perSecond(growing), p99: growing?.acknowledged?.latency?.p99 }
}

const diskBytes = (directory) => {
  let bytes = 0
  for (const entry of fs.readdirSync(directory, { withFileTypes: true, recursive: true })) {
    try {
      if (entry.isFile()) bytes += fs.statSync(path.join(entry.parentPath ?? entry.path, entry.name)).blocks * 512
    } catch {
      // It no longer exists.
    }
  }
  return bytes
}

const diskLeft = () => {
  const { bavail, bsize } = fs.statfsSync(options.directory)
  return bavail * bsize
}

const METRICS = {
  stores_open: "stores open",
  connections_open: "connections",
  storage_entry_bytes: "entries in the database, bytes",
  storage_database_bytes: "database, bytes",
  storage_trimmed_ids: "ids of trimmed entries"
}

const sample = async ({ server, data, http }) => {
  const of = (name) => fs.readFileSync(`/proc/${server.pid}/${name}`, "utf8")
  const kib = (name) => Number(of("status").match(new RegExp(`^${name}:\\s+(\\d+)`, "m"))?.[1] ?? 0)
  const metrics = await (await fetch(`${http}/metrics`)).text()
  const metric = (name) => Number(metrics.match(new RegExp(`^eventlog_${name} (\\S+)`, "m"))?.[1] ?? 0)
  return {
    "memory, bytes": kib("RssAnon") * 1024,
    descriptors: fs.readdirSync(`/proc/${server.pid}/fd`).length,
    threads: kib("Threads"),
    "disk, bytes": diskBytes(data),
    ...Object.fromEntries(Object.entries(METRICS).map(([name, said]) => [said, metric(name)]))
  }
}

// Linear regression by least squares: the change of `values` per hour.
const slope = (samples, name) => {
  const points = samples.filter((one) => one[name] !== undefined).map((one) => [one.seconds / 3_600, one[name]])
  const mean = (at) => points.reduce((sum, point) => sum + point[at], 0) / points.length
  const [x, y] = [mean(0), mean(1)]
  const [above, below] = points.reduce(([a, b], [px, py]) => [a + (px - x) * (py - y), b + (px - x) ** 2], [0, 0])
  return { mean: y, hourly: below === 0 ? 0 : above / below, most: Math.max(...points.map((point) => point[1])) }
}

const shown = (name, value) => {
  if (name.endsWith("bytes")) return `${(value / 1024 / 1024).toFixed(1)} MiB`
  if (name.endsWith("ms")) return `${value.toFixed(1)} ms`
  return Math.round(value).toLocaleString("en-US")
}

const report = (samples) => {
  const from = samples.at(-1).seconds * SETTLED_SHARE
  const settled = samples.filter((one) => one.seconds >= from)
  const minutes = ((samples.at(-1).seconds - from) / 60).toFixed(0)
  console.log(`\nthe last ${minutes} minutes of ${(samples.at(-1).seconds / 60).toFixed(0)}:`)
  console.log("| what | first | mean | most | change in an hour |\n| --- | --- | --- | --- | --- |")
  for (const name of Object.keys(samples.at(-1)).filter((name) => name !== "seconds")) {
    const { mean, hourly, most } = slope(settled, name)
    const first = settled.find((one) => one[name] !== undefined)[name]
    const change = `${hourly < 0 ? "−" : "+"}${shown(name, Math.abs(hourly))}`
    console.log(`| ${name} | ${shown(name, first)} | ${shown(name, mean)} | ${shown(name, most)} | ${change} (${((100 * hourly) / (mean || 1)).toFixed(1)}%) |`)
  }
}

const run = async () => {
  const groups = bound()
  const bounds = `${options.memory} MiB${options.cores === undefined ? "" : `, ${options.cores} cores`}`
  const target = await start(groups)
  const reached = options.rate ? null : (await round(target, undefined, 20)).writes
  const rate = options.rate ? Number(options.rate) : (reached * Number(options.share)) / 100
  const told = reached === null ? "" : `, ${options.share}% of ${Math.round(reached).toLocaleString("en-US")}`
  console.log(`${Math.round(rate).toLocaleString("en-US")} writes a second${told}; ${groups.length > 0 ? bounds : "not bounded"}`)
  const began = performance.now()
  const seconds = () => (performance.now() - began) / 1_000
  const file = path.join(options.directory, "samples.csv")
  let last = {}
  const take = async () => {
    const one = { seconds: seconds(), ...(await sample(target)), ...last }
    if (samples.length === 0) fs.writeFileSync(file, `${[...Object.keys(one), "writes per second", "p99, ms"].map((it) => JSON.stringify(it)).join()}\n`)
    samples.push(one)
    fs.appendFileSync(file, `${Object.values(one).join()}\n`)
  }
  const sampling = setInterval(() => take().catch((error) => console.error(error.message)), SAMPLE_MILLIS)
  while (seconds() < Number(options.minutes) * 60 && diskLeft() > DISK_LEFT_BYTES) {
    const { writes, p99 } = await round(target, rate, ROUND_SECONDS)
    last = { "writes per second": writes, "p99, ms": (p99 ?? 0) * 1_000 }
    const now = samples.at(-1)
    console.log(`${(seconds() / 60).toFixed(0)} min: ${Math.round(writes).toLocaleString("en-US")} writes/s, p99 ${last["p99, ms"].toFixed(1)} ms, memory ${shown("bytes", now["memory, bytes"])}, disk ${shown("bytes", now["disk, bytes"])}, ${now.descriptors} descriptors`)
  }
  clearInterval(sampling)
  await take()
  report(samples)
  console.log(faults === 0 ? "every answer was right" : `${faults} generators found a fault`)
  isStopping = true
  const ended = new Promise((resolve) => target.server.once("exit", resolve))
  target.server.kill("SIGTERM")
  await ended
  for (const group of groups) fs.rmdirSync(group)
  if (seconds() < Number(options.minutes) * 60) console.log("it ended early, because the disk has too little left")
  process.exitCode = faults === 0 ? 0 : 1
}

await run()
