// Unmodified clients of `effect` 4.1 that connect to a server which does not know them, as after a restore, each with its whole history.
// Reports how long that takes, and exits with an error if something does not arrive. It is for measurements: no test runs it.
//
//   node --max-old-space-size=8000 stock_return.mjs HOST:PORT ADMIN_TOKEN CLIENTS ENTRIES BYTES

import assert from "node:assert/strict"

import { Browser, makeIdentity, until } from "./stock.mjs"

const [address, token, ...numbers] = process.argv.slice(2)
const [clients, entries, bytes] = numbers.map(Number)
assert.ok(bytes, "usage: node stock_return.mjs HOST:PORT ADMIN_TOKEN CLIENTS ENTRIES BYTES")

const stored = async () => {
  const headers = { authorization: `Bearer ${token}` }
  for (;;) {
    try {
      const answer = await fetch(`http://${address}/admin/stores/default`, { headers })
      return answer.ok ? (await answer.json()).entries : 0
    } catch {
      // The connection was closed because it was idle while this process was busy.
    }
  }
}

const since = (begun) => `${((performance.now() - begun) / 1000).toFixed(1)} s`
let begun = performance.now()
const text = "x".repeat(bytes)
const browsers = []
for (let n = 0; n < clients; n++) {
  const browser = await Browser.offline(await makeIdentity())
  for (let at = 0; at < entries; at += 10_000) {
    const count = Math.min(10_000, entries - at)
    await browser.setAll(Array.from({ length: count }, (_, i) => ({ key: `${n} ${at + i}`, text })))
  }
  // The results of its handlers are not checked.
  browser.notes.clear()
  browsers.push(browser)
}
console.log(`${clients} journals of ${entries} entries: ${since(begun)}`)

const before = await stored()
begun = performance.now()
await Promise.all(browsers.map((browser) => browser.connect(`ws://${address}/rpc`)))
console.log(`all are connected: ${since(begun)}`)
const wanted = before + clients * entries
await until("all entries", async () => (await stored()) >= wanted, 1_800_000)
assert.equal(await stored(), wanted)
console.log(`${wanted - before} entries are stored: ${since(begun)}`)
process.exit(0)
