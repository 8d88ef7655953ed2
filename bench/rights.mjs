#!/usr/bin/env node
// How fast rights are taken away, and what that costs everyone else: sessions with a live subscription lose the grant that allowed it, or
// their user is revoked, while others stay connected, and one client writes and waits for each acknowledgement.
//
//   node bench/rights.mjs [--binary FILE] [--gone N] [--stay N]
//
// Server and clients share the machine. Each kind of client is a process of its own. Packages are those of tests/js. Needs Linux.

import { fork, spawn } from "node:child_process"
import { createHmac } from "node:crypto"
import fs from "node:fs"
import os from "node:os"
import path from "node:path"
import readline from "node:readline"
import { setTimeout as pause } from "node:timers/promises"
import { parseArgs } from "node:util"

import { Client } from "../tests/js/client.mjs"
import { encodeRequest, Entry, RequestChanges } from "../tests/js/messages.mjs"

const TOKEN = "only-for-this-benchmark"
const SECRET = "only for this benchmark, and more than 32 bytes"
// Handshakes at a time.
const AT_ONCE = 50
const CALM_MILLIS = 10_000
const AFTER_MILLIS = 2_000
// From an ack to the next write.
const PAUSE_MILLIS = 5

// The same clock in all processes.
const now = () => Number(process.hrtime.bigint()) / 1e6

const token = (subject) => {
  const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url")
  const claims = { sub: subject, exp: Math.floor(Date.now() / 1_000) + 3_600, public_keys: [`${subject}-*`], store_id: subject }
  const signed = `${base64({ alg: "HS256" })}.${base64(claims)}`
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`
}
const connect = (url, who, number) => Client.connect(`${url}?access_token=${token(who)}`, `${who}-${number}`)

// A crowd of subscribers tells when each of them was refused, and when it was closed.
const crowd = async (url, who, count) => {
  let [refused, closed] = [[], []]
  for (let from = 0; from < count; from += AT_ONCE) {
    const some = Array.from({ length: Math.min(AT_ONCE, count - from) }, async (_, at) => {
      const client = await connect(url, who, from + at)
      client.socket.removeAllListeners("message")
      client.socket.removeAllListeners("close")
      client.socket.on("message", () => refused.push(now()))
      client.socket.on("close", () => closed.push(now()))
      client.socket.send(encodeRequest(new RequestChanges({ publicKey: client.key, startSequence: 1 })))
    })
    await Promise.all(some)
  }
  process.on("message", () => {
    process.send({ refused, closed })
    refused = []
  })
  process.send("ready")
}

// A writer tells when each of its acks came, and after how long.
const writer = async (url) => {
  const client = await connect(url, "probe", 0)
  let acks = []
  process.on("message", () => {
    process.send(acks)
    acks = []
  })
  process.send("ready")
  for (let number = 1; ; number++) {
    const id = new Uint8Array(Buffer.from(crypto.randomUUID().replaceAll("-", ""), "hex"))
    const began = now()
    await client.write(number, [new Entry({ id, event: "E", primaryKey: "", payload: new Uint8Array([0xc0]) })])
    acks.push([began, now() - began])
    await pause(PAUSE_MILLIS)
  }
}

const answer = (child) => new Promise((resolve) => child.once("message", resolve))
const ask = (child) => {
  const answered = answer(child)
  child.send("tell")
  return answered
}
const begin = async (...args) => {
  const child = fork(import.meta.filename, ["--as", ...args.map(String)])
  await answer(child)
  return child
}

const share = (numbers, part) => numbers.toSorted((one, other) => one - other)[Math.min(numbers.length - 1, Math.floor(numbers.length * part))]
const millis = (number) => `${number.toFixed(1)} ms`
const latencies = (acks) => {
  const all = acks.map(([, latency]) => latency)
  return `p50 ${millis(share(all, 0.5))}, p99 ${millis(share(all, 0.99))}, longest ${millis(Math.max(...all))} of ${all.length} acks`
}

const serve = async (binary, auth) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "eventlog-rights-"))
  const file = path.join(directory, "eventlog.toml")
  const config = `listen = "127.0.0.1:0"\ndata_dir = "${directory}/data"\nadmin.token = "${TOKEN}"\nlog.level = "error"\n${auth}`
  fs.writeFileSync(file, config, { mode: 0o600 })
  const server = spawn(binary, ["serve", "--config", file], { stdio: ["ignore", "pipe", "inherit"] })
  const lines = readline.createInterface({ input: server.stdout })
  const url = await new Promise((resolve) => lines.once("line", (line) => resolve(line.split(" ").at(-1))))
  const admin = async (method, what, body) => {
    const headers = { authorization: `Bearer ${TOKEN}` }
    const response = await fetch(`http://${new URL(url).host}/admin/${what}`, { method, headers, body: JSON.stringify(body) })
    if (!response.ok) throw new Error(await response.text())
  }
  const cpuMillis = () => {
    const fields = fs.readFileSync(`/proc/${server.pid}/stat`, "utf8").split(") ")[1].split(" ")
    return (Number(fields[11]) + Number(fields[12])) * 10
  }
  const end = async () => {
    server.kill("SIGKILL")
    await new Promise((ended) => server.once("exit", ended))
    fs.rmSync(directory, { recursive: true })
  }
  return { url, admin, cpuMillis, end }
}

const measure = async (what, options, auth, prepare, take) => {
  const { url, admin, cpuMillis, end } = await serve(options.binary, auth)
  await prepare(admin)
  const [gone, stay, probe] = [await begin("crowd", url, "gone", options.gone), await begin("crowd", url, "stay", options.stay), await begin("writer", url)]
  await ask(probe)
  await pause(CALM_MILLIS)
  const calm = await ask(probe)
  const [began, before] = [now(), cpuMillis()]
  await take(admin)
  const answered = now() - began
  await pause(AFTER_MILLIS)
  const [{ refused, closed }, others, acks, spent] = [await ask(gone), await ask(stay), await ask(probe), cpuMillis() - before]
  if (refused.length !== Number(options.gone) || others.refused.length + others.closed.length > 0) {
    throw new Error(`${refused.length} were refused, and ${others.refused.length} of those who may stay`)
  }
  const when = (ended) => `the first after ${millis(Math.min(...ended) - began)}, half after ${millis(share(ended, 0.5) - began)}, the last after ${millis(Math.max(...ended) - began)}`
  console.log(`${what}: ${options.gone} sessions, beside ${options.stay} that stay`)
  console.log(`  answered after ${millis(answered)}`)
  console.log(`  refused: ${when(refused)}`)
  if (closed.length > 0) console.log(`  closed: ${when(closed)} (${closed.length})`)
  console.log(`  before: ${latencies(calm)}`)
  console.log(`  in the second from then on: ${latencies(acks.filter(([at]) => at >= began && at < began + 1_000))}`)
  console.log(`  the server's CPU in these ${AFTER_MILLIS / 1_000} s: ${spent} ms`)
  for (const child of [gone, stay, probe]) child.kill()
  await end()
}

const all = async () => {
  const { values: options } = parseArgs({
    options: {
      binary: { type: "string", default: path.resolve(import.meta.dirname, "../target/release/eventlog-server") },
      gone: { type: "string", default: "2000" },
      stay: { type: "string", default: "2000" }
    }
  })
  const grants = `paths = ["/eventlog"]\n[auth]\nmode = "grants"\n`
  await measure(
    "a grant is removed",
    options,
    grants,
    async (admin) => {
      for (const who of ["gone", "stay", "probe"]) await admin("PUT", `grants/${who}-*`, { read: true, write: true })
      for (let number = 0; number < options.gone; number++) await admin("PUT", `keys/gone-${number}`, { storeId: "gone" })
      for (let number = 0; number < options.stay; number++) await admin("PUT", `keys/stay-${number}`, { storeId: "stay" })
      await admin("PUT", "keys/probe-0", { storeId: "probe" })
    },
    (admin) => admin("DELETE", "grants/gone-*")
  )
  await measure(
    "a user is revoked",
    options,
    `[auth]\nmode = "jwt"\n[auth.jwt]\nsecret = "${SECRET}"\n`,
    async () => {},
    (admin) => admin("POST", "revocations", { subject: "gone" })
  )
}

const [as, kind, url, who, count] = process.argv.slice(2)
if (as !== "--as") await all()
else if (kind === "crowd") await crowd(url, who, Number(count))
else await writer(url)
