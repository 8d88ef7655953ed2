// Measures the console in Chromium: its first paint, and its frames under a feed of 5,000 entries a second. Also measures a console
// that is left open: the memory of the page after hours of events, and memory and processor time of the server on this machine.
//
//   node bench/console.mjs http://127.0.0.1:7420 ADMIN_TOKEN [CHROMIUM]
//
// Use a server for tests: this writes some 60,000 entries into its store `console-bench`. The packages are those of tests/js.

import { createRequire } from "node:module"

const { chromium } = createRequire(new URL("../tests/js/", import.meta.url))("playwright-core")

const [base, token, executablePath = "/usr/bin/chromium"] = process.argv.slice(2)
if (token === undefined) {
  console.error("usage: node bench/console.mjs http://HOST:PORT ADMIN_TOKEN [CHROMIUM]")
  process.exit(2)
}

const LOADS = 20
const SECONDS = 12
const RATE = 5_000

const median = (numbers) => numbers.toSorted((one, other) => one - other)[Math.floor(numbers.length / 2)]
const share = (numbers, part) => numbers.toSorted((one, other) => one - other)[Math.min(numbers.length - 1, Math.floor(numbers.length * part))]

const write = async (count) => {
  const entry = { event: "Tick", primaryKey: "bench", payload: "gaR0ZXh0omhp" }
  const body = JSON.stringify({ runHandlers: false, entries: Array.from({ length: count }, () => entry) })
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" }
  const response = await fetch(`${base}/admin/stores/console-bench/entries`, { method: "POST", headers, body })
  if (!response.ok) throw new Error(await response.text())
}

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] })

// Each page has its own context, so nothing is cached.
const firstPaint = async () => {
  const context = await browser.newContext()
  const page = await context.newPage()
  await page.goto(`${base}/console#token=${token}`)
  await page.waitForSelector(".tiles")
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime)
  const filled = await page.evaluate(() => performance.now())
  await context.close()
  return { paint, filled }
}

const frames = (page) =>
  page.evaluate(
    (millis) =>
      new Promise((resolve) => {
        const gaps = []
        let [before, end] = [performance.now(), performance.now() + millis]
        const next = (now) => {
          gaps.push(now - before)
          before = now
          if (now < end) requestAnimationFrame(next)
          else resolve(gaps)
        }
        requestAnimationFrame(next)
      }),
    SECONDS * 1_000
  )

// The same for a page with one word: the fastest that this browser can be on this machine.
const floor = async () => {
  const context = await browser.newContext()
  const page = await context.newPage()
  await page.goto(`${base}/healthz`)
  await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length > 0)
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime)
  await context.close()
  return paint
}

await write(1)
await firstPaint()
const loads = []
for (let load = 0; load < LOADS; load++) loads.push(await firstPaint())
const paints = loads.map(({ paint }) => paint)
console.log(`first paint: median ${median(paints).toFixed(0)} ms, most ${Math.max(...paints).toFixed(0)} ms, of ${LOADS} loads without a cache`)
const floors = []
for (let load = 0; load < LOADS; load++) floors.push(await floor())
console.log(`first paint of /healthz, for comparison: median ${median(floors).toFixed(0)} ms`)
console.log(`overview with its figures: median ${median(loads.map(({ filled }) => filled)).toFixed(0)} ms`)

const page = await (await browser.newContext()).newPage()
await page.goto(`${base}/console#token=${token}`)
await page.waitForSelector("nav[aria-label=Views]")
await page.evaluate(() => (location.hash = "#/stores/console-bench"))
await page.waitForSelector(".feed li")
const idle = await frames(page)
const measured = frames(page)
const [began, step] = [performance.now(), 50]
let written = 0
while (performance.now() - began < SECONDS * 1_000) {
  const due = Math.floor(((performance.now() - began) / 1_000) * RATE) - written
  if (due > 0) await write(due)
  written += Math.max(0, due)
  await new Promise((resolve) => setTimeout(resolve, step))
}
const gaps = await measured
const said = await page.locator(".tools p").first().innerText()
const rate = (written / ((performance.now() - began) / 1_000)).toFixed(0)
console.log(`frames while nothing comes: median ${median(idle).toFixed(0)} ms, 99% within ${share(idle, 0.99).toFixed(0)} ms, longest ${Math.max(...idle).toFixed(0)} ms`)
console.log(`frames at ${rate} entries/s: median ${median(gaps).toFixed(0)} ms, 99% within ${share(gaps, 0.99).toFixed(0)} ms, longest ${Math.max(...gaps).toFixed(0)} ms`)
console.log(`it says: ${said.replace(/\s+/g, " ")}`)

// A console that is left open, sped up: the page gets hours of events, one at a time, as fast as it shows them.
const context = await browser.newContext()
await context.addInitScript(() => {
  window.sources = []
  window.EventSource = class {
    constructor(url) {
      this.url = url
      window.sources.push(this)
      setTimeout(() => this.onopen?.())
    }
    close() {
      window.sources = window.sources.filter((source) => source !== this)
    }
  }
})
const left = await context.newPage()
const debug = await context.newCDPSession(left)
const weight = async () => {
  await debug.send("HeapProfiler.collectGarbage")
  const { usedSize } = await debug.send("Runtime.getHeapUsage")
  const { nodes, jsEventListeners } = await debug.send("Memory.getDOMCounters")
  return `${(usedSize / 2 ** 20).toFixed(1)} MiB, ${nodes} nodes, ${jsEventListeners} listeners`
}
const last = async (path) => {
  const response = await fetch(`${base}/admin/${path}`, { headers: { authorization: `Bearer ${token}` } })
  return response.json()
}
// `make` returns the event with this number; it runs in the page.
const tell = (count, make, given, from) =>
  left.evaluate(
    async ([count, make, given, from]) => {
      const event = new Function("given", "number", `return (${make})(given, number)`)
      for (let number = from; number < from + count; number++) {
        window.sources.forEach((source) => source.onmessage?.({ data: JSON.stringify(event(given, number)) }))
        await new Promise((resolve) => setTimeout(resolve))
      }
    },
    [count, String(make), given, from]
  )
await left.goto(`${base}/console#token=${token}`)
await left.waitForSelector(".tiles")
const { rows, fields, ...now } = await last("overview")
const overviewEvent = (given, number) => ({ ...given.now, row: given.row.map((value, at) => (at === 0 ? value + number * 2_000 : (value ?? 0) + (number % 97))) })
const hour = 1_800
await tell(hour, overviewEvent, { now, row: rows.at(-1) }, 0)
console.log(`overview after an hour: ${await weight()}`)
await tell(hour, overviewEvent, { now, row: rows.at(-1) }, hour)
console.log(`overview after two hours: ${await weight()}`)
await left.evaluate(() => (location.hash = "#/stores/console-bench"))
await left.waitForSelector(".tools .live")
const { entries } = await last("stores/console-bench/entries?newest=50&payloadMax=1024")
const feedEvent = (given, number) => ({
  head: given.head + (number + 1) * 50,
  passedOver: 1_200,
  entries: given.entries.map((entry, at) => ({ ...entry, sequence: given.head + number * 50 + at + 1 }))
})
const quarter = 1_200
await tell(quarter, feedEvent, { head: 1_000_000, entries }, 0)
console.log(`live feed after 1,200 events: ${await weight()}`)
await tell(quarter, feedEvent, { head: 1_000_000, entries }, quarter)
console.log(`live feed after 2,400 events: ${await weight()}`)
await browser.close()

// What open consoles cost the server, if it runs on this machine.
const { execFileSync } = await import("node:child_process")
const { readFileSync } = await import("node:fs")
const port = new URL(base).port
const listens = execFileSync("ss", ["-ltnpH", `sport = :${port}`]).toString().match(/pid=(\d+)/)
if (listens) {
  const usage = () => {
    const kib = Number(readFileSync(`/proc/${listens[1]}/status`, "utf8").match(/VmRSS:\s+(\d+)/)[1])
    const times = readFileSync(`/proc/${listens[1]}/stat`, "utf8").split(") ")[1].split(" ")
    return { kib, ticks: Number(times[11]) + Number(times[12]) }
  }
  const watch = async (seconds) => {
    const before = usage()
    await new Promise((resolve) => setTimeout(resolve, seconds * 1_000))
    const after = usage()
    return { kib: after.kib, cpu: (after.ticks - before.ticks) / seconds }
  }
  const alone = await watch(20)
  const CONSOLES = 100
  const open = new AbortController()
  const paths = ["overview", "stores/console-bench/entries?newest=50&payloadMax=1024"]
  const streams = Array.from({ length: CONSOLES }, async (_, at) => {
    const headers = { authorization: `Bearer ${token}`, accept: "text/event-stream" }
    const response = await fetch(`${base}/admin/${paths[at % 2]}`, { headers, signal: open.signal })
    for await (const _ of response.body);
  })
  await new Promise((resolve) => setTimeout(resolve, 5_000))
  const watched = await watch(20)
  console.log(`server with ${CONSOLES} open consoles: ${((watched.kib - alone.kib) / CONSOLES).toFixed(0)} KiB and ${((watched.cpu - alone.cpu) / CONSOLES).toFixed(3)}% of a core each`)
  open.abort()
  await Promise.allSettled(streams)
}
