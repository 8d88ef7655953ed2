#!/usr/bin/env node
// How long each command that cares for data takes, and what a running backup and a compaction cost clients that write meanwhile.
//
//   node bench/care.mjs [--entries N] [--payload BYTES] [--binary FILE] [--directory DIR] [--steps 1|0]
//                       [--beside 1|0] [--rate WRITES] [--seconds N] [--rounds N]
//
// Steps: fill a store; back it up, from nothing and again; export; import that into an empty server; verify; restore; rebuild; heal;
// erase a tenth of the entries, which lie all over the store; wait until no file has them; verify that; trim 9 tenths; compact. Payloads
// are random, so nothing compresses well.
//
// Beside: the ack times of RATE single writes a second over 16 connections, in rounds of SECONDS: calm, beside complete backups one after
// the other, beside a backup of what is new each second, beside `compact` that begins again at once.
//
// Memory is the most that the process had, without file pages. Ten million entries need about 20 GB of disk. Needs Linux and node.

import { spawn } from "node:child_process"
import { randomFillSync } from "node:crypto"
import { once } from "node:events"
import fs from "node:fs"
import path from "node:path"
import readline from "node:readline"
import { setTimeout as pause } from "node:timers/promises"
import { parseArgs } from "node:util"

const root = path.resolve(import.meta.dirname, "..")
const { values: options } = parseArgs({
  options: {
    binary: { type: "string", default: path.join(root, "target/release/eventlog-server") },
    directory: { type: "string", default: path.join(root, "target/care") },
    entries: { type: "string", default: "1000000" },
    payload: { type: "string", default: "100" },
    steps: { type: "string", default: "1" },
    beside: { type: "string", default: "1" },
    rate: { type: "string", default: "10000" },
    seconds: { type: "string", default: "15" },
    rounds: { type: "string", default: "3" }
  }
})
const entries = Number(options.entries)
const TOKEN = "only-for-this-benchmark"
const STORE = "default"
// The primary key of every tenth entry.
const SOMEBODY = "somebody"
const BATCH = 1_000
// At most this many times the calm p99 is accepted beside a backup.
const RATIO_MAX = 2

const at = (...names) => path.join(options.directory, ...names)
const remove = (...names) => fs.rmSync(at(...names), { recursive: true, force: true })
const mib = (bytes) => (bytes === null ? "" : `${(bytes / 1024 / 1024).toFixed(0)} MiB`)
const millis = (seconds) => `${(seconds * 1_000).toFixed(1)} ms`

const sizeOf = (directory) => {
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

// Looks at the memory of a process until `stop`, which returns the most that it had.
const watched = (pid) => {
  let most = 0
  const look = () => {
    try {
      const kib = fs.readFileSync(`/proc/${pid}/status`, "utf8").match(/^RssAnon:\s+(\d+)/m)?.[1]
      most = Math.max(most, Number(kib ?? 0) * 1024)
    } catch {
      // It has ended.
    }
  }
  look()
  const timer = setInterval(look, 20)
  return () => {
    look()
    clearInterval(timer)
    return most
  }
}

// A server on the directory `name`.
const serve = async (name) => {
  const file = at(`${name}.toml`)
  const config = `[log]\nlevel = "warn"\n[auth]\nmode = "allow-all"\n[admin]\ntoken = "${TOKEN}"\n[erase]\nclean_after = "1s"\n`
  fs.writeFileSync(file, config, { mode: 0o600 })
  const args = ["serve", "--dev", "--config", file, "--data-dir", at(name), "--listen", "127.0.0.1:0"]
  const child = spawn(options.binary, args, { stdio: ["ignore", "pipe", "inherit"] })
  const ended = once(child, "exit")
  const port = await new Promise((resolve, reject) => {
    ended.then(([code, signal]) => reject(new Error(`the server ended: ${code ?? signal}`)))
    readline.createInterface({ input: child.stdout }).on("line", (line) => {
      const port = line.match(/ws:\/\/[^/]*:(\d+)/)?.[1]
      if (port) resolve(port)
    })
  })
  const http = `http://127.0.0.1:${port}`
  const metric = async (name) => {
    const text = await (await fetch(`${http}/metrics`)).text()
    return Number(text.match(new RegExp(`^eventlog_storage_${name} (\\S+)`, "m"))?.[1] ?? 0)
  }
  const until = async (name, is) => {
    while (!is(await metric(name))) await pause(100)
  }
  const stop = async () => {
    child.kill("SIGTERM")
    const [code] = await ended
    if (code !== 0) throw new Error(`the server ended with ${code}`)
  }
  return { pid: child.pid, url: `ws://127.0.0.1:${port}/eventlog`, metric, until, stop }
}

// Without the token `bench` writes to the store that everything else is in.
const environment = (server, command) => ({
  ...process.env,
  ...(command !== "bench" && { EVENTLOG_ADMIN_TOKEN: TOKEN }),
  ...(server && { EVENTLOG_URL: server.url })
})

// Runs a command. Returns what it printed last, how long it took in seconds, and the most memory that it had. `feed` writes its input.
const run = async (args, server, feed) => {
  const begun = performance.now()
  const stdio = [feed ? "pipe" : "ignore", "pipe", "pipe"]
  const child = spawn(options.binary, args, { stdio, env: environment(server, args[0]) })
  const memory = watched(child.pid)
  let text = ""
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (some) => (text = (text + some).slice(-100_000)))
  const ended = once(child, "close")
  // If the command ends early, its exit code says so.
  child.stdin?.on("error", () => {})
  if (feed) await feed(child.stdin)
  const [code] = await ended
  const seconds = (performance.now() - begun) / 1_000
  if (code !== 0) throw new Error(`${args.join(" ")}: ${code}\n${text}`)
  return { text: text.trim(), seconds, memory: memory() }
}

// Writes `entries` lines as `import` reads them. Ids are as old as if a thousand had been made each millisecond.
const write = async (stream) => {
  const pool = Buffer.alloc(1 << 20)
  let used = pool.length
  const random = (bytes) => {
    if (used + bytes > pool.length) {
      randomFillSync(pool)
      used = 0
    }
    used += bytes
    return pool.subarray(used - bytes, used)
  }
  const first = Date.now() - Math.ceil(entries / 1_000)
  for (let from = 0; from < entries; from += BATCH) {
    const lines = []
    for (let n = from; n < Math.min(from + BATCH, entries); n++) {
      const time = (first + Math.floor(n / 1_000)).toString(16).padStart(12, "0")
      const rest = random(8).toString("hex")
      const id = `${time}7${(n % 1_000).toString(16).padStart(3, "0")}8${rest.slice(1)}`
      const primaryKey = n % 10 === 0 ? SOMEBODY : `key-${n % 99_991}`
      const payloadBase64 = random(Number(options.payload)).toString("base64")
      lines.push(JSON.stringify({ id, event: "Benchmark", primaryKey, payloadBase64 }))
    }
    if (!stream.write(`${lines.join("\n")}\n`)) await once(stream, "drain")
  }
  stream.end()
}

const rows = []
// Measures `work`, which returns what to say about it, beside a server or not.
const step = async (name, server, work) => {
  const memory = server && watched(server.pid)
  const begun = performance.now()
  const { note, own } = await work()
  const row = { name, seconds: (performance.now() - begun) / 1_000, server: memory ? memory() : null, own: own ?? null, note }
  rows.push(row)
  console.log(`${name}: ${row.seconds.toFixed(2)} s; server ${mib(row.server) || "none"}, command ${mib(row.own) || "none"}; ${note}`)
}
const command = (name, server, args, note = (text) => text.split("\n").at(-1)) =>
  step(name, server, async () => {
    const { text, memory } = await run(args, server)
    return { note: note(text), own: memory }
  })

const perByte = async (server) => {
  const [disk, live] = [await server.metric("database_bytes"), await server.metric("entry_bytes")]
  return `database ${mib(disk)}, ${(disk / Math.max(live, 1)).toFixed(2)} bytes for each of its entries`
}

const fill = async (server) => {
  await step(`fill: import of ${entries} generated lines`, server, async () => {
    const { text, memory } = await run(["import", "--store", STORE], server, write)
    return { note: text, own: memory }
  })
}

const copies = async (server) => {
  await command("backup --to, the first one", server, ["backup", "--to", at("backups")])
  await command("backup --to, again", server, ["backup", "--to", at("backups")])
  await command("export --out", server, ["export", "--out", at("all.jsonl")])
  console.log(`  ${mib(fs.statSync(at("all.jsonl")).size)} of lines`)
}

const elsewhere = async () => {
  const empty = await serve("imported")
  await command("import, into an empty server", empty, ["import", at("all.jsonl")])
  await command("import, of what is there already", empty, ["import", at("all.jsonl")])
  await empty.stop()
  remove("imported")
  remove("all.jsonl")
}

const stopped = async () => {
  await command("verify --data-dir", null, ["verify", "--data-dir", at("data")])
  await command("rebuild", null, ["rebuild", "--data-dir", at("data")])
  remove("data", "sled.damaged-1")
  await command("restore", null, ["restore", "--from", at("backups"), "--data-dir", at("restored")])
  await command("heal", null, ["heal", "--data-dir", at("restored"), "--yes"])
  remove("restored", "sled.before-heal-1")
  remove("backups")
}

const gone = async (server) => {
  const nobody = ["erase", "--store", STORE, "--yes", "--primary-key"]
  await command("erase --primary-key that no entry has", server, [...nobody, "nobody"])
  await command("erase --primary-key of a tenth", server, [...nobody, SOMEBODY])
  await step("after that: no file has it any more", server, async () => {
    await server.until("erased_remains", (remains) => remains === 0)
    return { note: await perByte(server) }
  })
  await command("erase --verify", server, ["erase", "--verify", "--data-dir", at("data")], (text) => text.split("\n")[0])
  const before = String(Math.floor(entries * 0.9) + 1)
  await command("trim of 9 tenths", server, ["trim", "--store", STORE, "--before", before, "--yes"])
  await step("after that: the space is free inside", server, async () => {
    // It begins at the next checkpoint, at most a minute later.
    await server.until("trimmed_ids", (ids) => ids >= Number(before) - 1)
    return { note: await perByte(server) }
  })
  await command("compact", server, ["compact"])
  console.log(`  ${await perByte(server)}; the whole directory ${mib(sizeOf(at("data")))}`)
}

// Repeats `work` until `stop`, which waits for the last one and returns how many there were.
const repeated = (work) => {
  let [goes, count] = [true, 0]
  const done = (async () => {
    for (; goes; count++) await work()
  })()
  return async () => {
    goes = false
    await done
    return count
  }
}

// What clients notice of `work` that is repeated meanwhile: their ack times in seconds.
const acks = async (server, work) => {
  const stop = work && repeated(work)
  const during = ["--duration", options.seconds, "--warm-up", "2", "--floors", "none", "--json"]
  const { text } = await run(["bench", "write", "--url", server.url, "--rate", options.rate, ...during], server)
  const count = stop ? await stop() : 0
  return { ...JSON.parse(text.slice(text.indexOf("{"))).acknowledged.latency, count }
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1]

const beside = async (server) => {
  let backups = 0
  const complete = async () => {
    const name = `complete-${(backups += 1)}`
    await run(["backup", "--to", at(name)], server)
    remove(name)
  }
  const kinds = {
    calm: null,
    "complete backups": complete,
    "a backup each second": async () => {
      await run(["backup", "--to", at("increments"), "--keep", "3"], server)
      await pause(1_000)
    },
    compact: () => run(["compact"], server)
  }
  // The first start after a restore writes a base to the archive.
  await complete()
  const measured = Object.fromEntries(Object.keys(kinds).map((kind) => [kind, []]))
  for (let round = 1; round <= Number(options.rounds); round++) {
    for (const [kind, work] of Object.entries(kinds)) {
      const one = await acks(server, work)
      measured[kind].push(one)
      console.log(`round ${round}, ${kind}${work ? ` (${one.count})` : ""}: p50 ${millis(one.p50)}, p99 ${millis(one.p99)}, longest ${millis(one.max)}`)
    }
  }
  remove("increments")
  const calm = median(measured.calm.map((one) => one.p99))
  console.log(`\n${options.rate} writes a second, p99 of their acks, ${options.seconds} s each:\n| beside | p99 in each round | median | of calm |\n| --- | --- | --- | --- |`)
  for (const [kind, all] of Object.entries(measured)) {
    const p99 = all.map((one) => one.p99)
    const ratio = median(p99) / calm
    const said = kind === "calm" ? "" : `${ratio.toFixed(2)} times${ratio > RATIO_MAX ? ` (more than ${RATIO_MAX})` : ""}`
    console.log(`| ${kind} | ${p99.map(millis).join(", ")} | ${millis(median(p99))} | ${said} |`)
  }
}

const main = async () => {
  fs.rmSync(options.directory, { recursive: true, force: true })
  fs.mkdirSync(options.directory, { recursive: true })
  let server = await serve("data")
  await fill(server)
  console.log(`  ${await perByte(server)}; the whole directory ${mib(sizeOf(at("data")))}`)
  const steps = options.steps === "1"
  if (steps) {
    await copies(server)
    await server.stop()
    await elsewhere()
    await stopped()
    // What is restored has as many entries. Its writes do not add to those that are erased and trimmed below.
    server = await serve("restored")
  }
  if (options.beside === "1") await beside(server)
  if (steps) {
    await server.stop()
    remove("restored")
    server = await serve("data")
    await gone(server)
  }
  await server.stop()
  console.log(`\n| with ${entries} entries of ${options.payload} bytes | took | memory: server, command | |\n| --- | --- | --- | --- |`)
  for (const { name, seconds, server, own, note } of rows) {
    console.log(`| ${name} | ${seconds.toFixed(2)} s | ${[server, own].map((bytes) => mib(bytes) || "–").join(", ")} | ${note} |`)
  }
  remove()
}

await main()
