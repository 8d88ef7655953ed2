// How the console feels in Chromium: its first paint, and whether it stays smooth under a feed of 5,000 entries a second.
//
//   node bench/console.mjs http://127.0.0.1:7420 ADMIN_TOKEN [CHROMIUM]
//
// The server is one to play with: this writes some 60,000 entries into its store `console-bench`. Packages are those of tests/js.

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

// Each in a context of its own, so nothing is cached.
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

await write(1)
await firstPaint()
const loads = []
for (let load = 0; load < LOADS; load++) loads.push(await firstPaint())
const paints = loads.map(({ paint }) => paint)
console.log(`first paint: median ${median(paints).toFixed(0)} ms, most ${Math.max(...paints).toFixed(0)} ms, of ${LOADS} loads without a cache`)
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
await browser.close()
