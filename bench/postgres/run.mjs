#!/usr/bin/env node
// Measures this server on PostgreSQL: against Effect's own server on the same PostgreSQL, and with two nodes.
//
//   bench/postgres/run [--binary FILE] [--directory DIR] [--seconds N] [--bare FILE] [SCENARIO…]
//
// The binary is target/release/eventlog-server unless another is given. PostgreSQL (on the path, or in Debian's folders)
// gets a temporary cluster below DIR (target/postgres), so the disk of DIR is measured. Each scenario gets a fresh
// database and fresh servers. Nothing else should run on the machine. Needs node and npm.
//
// The scenario `bare` needs the executable that `cargo bench --no-run --bench postgres` names, in --bare. It compares with the
// bare statement, which runs while a server in memory answers the same load: so both have the same processors left.

import { execFileSync, spawn, spawnSync } from "node:child_process"
import fs from "node:fs"
import path from "node:path"
import readline from "node:readline"
import { parseArgs } from "node:util"

const root = path.resolve(import.meta.dirname, "../..")
const peer = path.join(root, "tests/js/sql")
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    binary: { type: "string", default: path.join(root, "target/release/eventlog-server") },
    directory: { type: "string", default: path.join(root, "target/postgres") },
    seconds: { type: "string", default: "10" },
    bare: { type: "string" }
  }
})
const TOKEN = "only-for-this-benchmark"
const during = ["--duration", options.seconds]

const debian = fs.existsSync("/usr/lib/postgresql") ? fs.readdirSync("/usr/lib/postgresql").sort().reverse() : []
const folders = [...process.env.PATH.split(":"), ...debian.map((version) => `/usr/lib/postgresql/${version}/bin`)]
const programs = folders.find((folder) => ["initdb", "postgres", "psql"].every((it) => fs.existsSync(path.join(folder, it))))
if (programs === undefined) throw new Error("there is no PostgreSQL: install the package postgresql")

// PostgreSQL does not run as root.
const isRoot = process.getuid() === 0
const asUser = (program, args) =>
  isRoot ? ["setpriv", ["--reuid", "postgres", "--clear-groups", program, ...args]] : [program, args]

const port = 20_000 + (process.pid % 10_000)
const data = path.join(options.directory, "data")
const startCluster = () => {
  fs.rmSync(options.directory, { recursive: true, force: true })
  fs.mkdirSync(options.directory, { recursive: true })
  if (isRoot) execFileSync("chown", ["postgres", options.directory])
  const initdb = ["--auth=trust", "--username=eventlog", "--encoding=UTF8", "--locale=C.UTF-8", "-D", data]
  execFileSync(...asUser(path.join(programs, "initdb"), initdb), { stdio: "ignore", cwd: "/" })
  const settings = ["-D", data, "-p", String(port), "-k", options.directory, "-c", "listen_addresses=127.0.0.1"]
  const more = ["-c", "max_connections=100", "-c", "shared_buffers=256MB", "-c", "max_wal_size=2GB"]
  return spawn(...asUser(path.join(programs, "postgres"), [...settings, ...more]), { stdio: "ignore", cwd: "/" })
}
const urlOf = (name) => `postgres://eventlog@127.0.0.1:${port}/${name}`
const sql = (name, text) =>
  execFileSync(path.join(programs, "psql"), ["-XAtq", "-c", text, urlOf(name)], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()

let databases = 0
const freshDatabase = () => {
  const name = `bench_${++databases}`
  sql("postgres", `CREATE DATABASE ${name}`)
  sql("postgres", "CHECKPOINT")
  return urlOf(name)
}

// A server's process and its address, once it listens.
const running = new Set()
const start = (command, args, env) =>
  new Promise((resolve, reject) => {
    const server = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, ...env } })
    running.add(server)
    server.once("error", reject)
    server.once("exit", (code) => reject(new Error(`${command} ended with ${code}`)))
    readline.createInterface({ input: server.stdout }).once("line", (line) => {
      const found = line.match(/(?:listening )(?:on )?(?:ws:\/\/[^/]*:)?(\d+)/)
      if (found) resolve({ server, url: `ws://127.0.0.1:${found[1]}/rpc` })
      else reject(new Error(`${command} says ${line}`))
    })
  })
const stopAll = async () => {
  for (const server of running) {
    const ended = new Promise((resolve) => server.once("exit", resolve))
    server.kill("SIGTERM")
    setTimeout(() => server.kill("SIGKILL"), 3_000).unref()
    await ended
  }
  running.clear()
}

const effects = (database) => start("node", [path.join(peer, "server.mjs"), "0", database, "default"])
const ours = (database, dev = true) => {
  const directory = fs.mkdtempSync(path.join(options.directory, "node-"))
  const args = ["serve", "--listen", "127.0.0.1:0", "--data-dir", directory, ...(dev ? ["--dev"] : [])]
  return start(options.binary, args, {
    EVENTLOG_STORAGE_KIND: "postgres",
    EVENTLOG_STORAGE_URL: database,
    EVENTLOG_ADMIN_TOKEN: TOKEN,
    RUST_LOG: "error",
    ...(dev ? {} : { EVENTLOG_AUTH_MODE: "allow-all" })
  })
}

// With a token, even an empty one, the generator would assign its keys through the admin API.
const { EVENTLOG_ADMIN_TOKEN: _, ...withoutToken } = process.env

// Runs the generator until it ends, and resolves to its report.
const load = (scenario, { url, server }, args) =>
  new Promise((resolve, reject) => {
    const all = ["bench", scenario, "--url", url, "--pid", String(server.pid), "--floors", "none", "--json", ...args]
    const generator = spawn(options.binary, all, { stdio: ["ignore", "pipe", "inherit"], env: withoutToken })
    let text = ""
    generator.stdout.on("data", (some) => (text += some))
    generator.once("exit", (code) =>
      code === 0 ? resolve(JSON.parse(text)) : reject(new Error(`bench ${scenario} ended with ${code}: ${text}`)))
  })

const number = (value) => Math.round(value).toLocaleString("en-US")
const millis = (seconds) => `${(seconds * 1_000).toFixed(1)} ms`
const say = (...columns) => console.log(`| ${columns.join(" | ")} |`)

const acknowledged = (report) => report.acknowledged.entries_per_second
const against = async (name, scenario, args, figure = acknowledged) => {
  const figures = []
  for (const start of [ours, effects]) {
    const server = await start(freshDatabase())
    const report = await load(scenario, server, ["--protocol", "rpc", ...args])
    figures.push(figure(report))
    await stopAll()
  }
  const [one, other] = figures
  say(name, `${number(one)}/s`, `${number(other)}/s`, (one / other).toFixed(1))
}

// The CPU time of a process so far, in seconds.
const cpuOfOne = (pid) => {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /, "").split(" ")
  return (Number(fields[11]) + Number(fields[12])) / TICKS
}

// The lines of the bare statement's report that are about `load`: its layout of tables, and its rate.
const bare = (database, load) =>
  new Promise((resolve, reject) => {
    const running = spawn(options.bare, [database, "--seconds", options.seconds, "--only", load], { stdio: ["ignore", "pipe", "inherit"] })
    let text = ""
    running.stdout.on("data", (some) => (text += some))
    running.once("error", reject)
    running.once("exit", (code) => {
      const found = [...text.matchAll(/^\w+, (.*): (\d+) entries/gm)].map(([, layout, rate]) => [layout, Number(rate)])
      if (code === 0) resolve(found)
      else reject(new Error(`${options.bare} ended with ${code}`))
    })
  })

// The CPU time of all processes of the cluster so far, including those that ended, in seconds.
const TICKS = 100
const cpuOf = (pid) => {
  const times = (of) => {
    const fields = fs.readFileSync(`/proc/${of}/stat`, "utf8").replace(/^.*\) /, "").split(" ").map(Number)
    return (fields[11] + fields[12] + (of === pid ? fields[13] + fields[14] : 0)) / TICKS
  }
  const children = execFileSync("ps", ["-o", "pid=", "--ppid", String(pid)], { encoding: "utf8" }).trim().split(/\s+/)
  return [pid, ...children].reduce((sum, of) => {
    try {
      return sum + times(of)
    } catch {
      return sum
    }
  }, 0)
}
const postmaster = () => Number(fs.readFileSync(path.join(data, "postmaster.pid"), "utf8").split("\n")[0])

const scenarios = {
  write: () => against("`write`: 16 connections, 64 in flight each", "write", ["--connections", "16", ...during]),
  one: () => against("`write`: 1 connection, 1 in flight", "write", ["--connections", "1", "--in-flight", "1", ...during]),
  ingest: () => against("`ingest`: 4 connections, batches of 1,000", "ingest", ["--connections", "4", ...during]),
  "catch-up": () =>
    against("`catch-up`: 20,000 entries", "catch-up", ["--count", "20000", "--rounds", "5"], (report) => report.entries_per_second),
  stores: async () => {
    const server = await ours(freshDatabase(), false)
    const report = await load("write", server, ["--admin-token", TOKEN, "--stores", "1000", "--connections", "16", ...during])
    say("`write`: 1,000 stores in turn", `${number(acknowledged(report))}/s`, `p50 ${millis(report.acknowledged.latency.p50)}`, `p99 ${millis(report.acknowledged.latency.p99)}`)
    await stopAll()
  },
  bare: async () => {
    if (options.bare === undefined) return say("the bare statement", "not measured: see --bare")
    const loads = {
      write: ["--connections", "1", "--in-flight", "64"],
      stores: ["--stores", "1000", "--connections", "16"]
    }
    for (const [name, args] of Object.entries(loads)) {
      const server = await ours(freshDatabase(), false)
      const report = await load("write", server, ["--protocol", "rpc", "--admin-token", TOKEN, ...args, ...during])
      const [rate, cpu] = [acknowledged(report), cpuOfOne(server.server.pid)]
      await stopAll()
      // The same server in memory, with the same load, answers that many writes beside the bare statement.
      const directory = fs.mkdtempSync("/dev/shm/eventlog-bench-")
      const beside = await start(
        options.binary,
        ["serve", "--listen", "127.0.0.1:0", "--data-dir", directory],
        { EVENTLOG_ADMIN_TOKEN: TOKEN, EVENTLOG_AUTH_MODE: "allow-all", RUST_LOG: "error" }
      )
      const long = String(Number(options.seconds) * 3 + 5)
      const limited = ["--protocol", "rpc", "--admin-token", TOKEN, ...args, "--rate", String(Math.round(rate)), "--warm-up", "0", "--duration", long]
      const other = load("write", beside, limited)
      await new Promise((resolve) => setTimeout(resolve, 2_000))
      const layouts = await bare(freshDatabase(), name)
      const answered = await other
      const own = cpuOfOne(beside.server.pid) / (acknowledged(answered) * answered.seconds)
      await stopAll()
      fs.rmSync(directory, { recursive: true, force: true })
      const entries = rate * report.seconds
      const ratios = layouts.map(([layout, bare]) => `bare, ${layout}: ${number(bare)}/s, ${Math.round((rate / bare) * 100)}%`)
      say(`\`${name}\` beside the bare statement`, `${number(rate)}/s`, ...ratios,
        `the server: ${((cpu / entries) * 1e6).toFixed(1)} µs of CPU an entry at most, in memory ${(own * 1e6).toFixed(1)} µs, ${number(acknowledged(answered))}/s beside`)
    }
  },
  latency: async () => {
    const database = freshDatabase()
    const [here, there] = [await ours(database), await ours(database)]
    // The nodes need time to find each other.
    await new Promise((resolve) => setTimeout(resolve, 7_000))
    const args = ["--subscribers-url", there.url, "--subscribers", "1", "--writers", "2", "--batch", "1", "--rate", "200", ...during]
    const { delivered: { latency } } = await load("fan-out", here, args)
    say("write at one node to delivery at the other, 200 writes/s", `p50 ${millis(latency.p50)}`, `p99 ${millis(latency.p99)}`, `max ${millis(latency.max)}`)
    await stopAll()
  },
  nodes: async () => {
    const costs = []
    // One node; two that share its load; two that have its load each. Each node uses its own stores.
    for (const [count, connections] of [[1, 8], [2, 4], [2, 8]]) {
      const database = freshDatabase()
      const nodes = []
      for (let n = 0; n < count; n++) nodes.push(await ours(database, false))
      await new Promise((resolve) => setTimeout(resolve, 7_000))
      const before = cpuOf(postmaster())
      const args = ["--admin-token", TOKEN, "--stores", "2", "--connections", String(connections), "--warm-up", "0", ...during]
      const reports = await Promise.all(nodes.map((node) => load("write", node, args)))
      const entries = reports.reduce((sum, report) => sum + acknowledged(report) * report.seconds, 0)
      costs.push([((cpuOf(postmaster()) - before) / entries) * 1e6, entries / Number(options.seconds)])
      await stopAll()
    }
    const cost = ([cpu, rate]) => `${cpu.toFixed(1)} µs at ${number(rate)}/s`
    const [[one], ...two] = costs
    const ratios = two.map(([cpu]) => (cpu / one).toFixed(2))
    say("CPU of PostgreSQL for an entry: one node, two that share its load, two with as much each", ...costs.map(cost), ratios.join(", "))
  }
}

spawnSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: peer, stdio: "ignore" })
const cluster = startCluster()
try {
  for (let tries = 0; ; tries++) {
    try {
      sql("postgres", "SELECT 1")
      break
    } catch (error) {
      if (tries > 300) throw error
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  say("scenario", "this server", "Effect's", "ratio")
  say("---", "---", "---", "---")
  for (const name of positionals.length > 0 ? positionals : Object.keys(scenarios)) await scenarios[name]()
} finally {
  await stopAll()
  cluster.kill("SIGINT")
  await new Promise((resolve) => cluster.once("exit", resolve))
  fs.rmSync(options.directory, { recursive: true, force: true })
}
