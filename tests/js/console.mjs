// Tests the console in Chromium. Exits with an error at the first failure.
//
//   node console.mjs HOST:PORT ADMIN_TOKEN READ_TOKEN CHROMIUM
//
// The server has both tokens, maps unknown keys to the store `default`, and a webhook `mail` that fails for each event `Doomed`.
// Where this prints `stop` or `start`, whoever runs it kills the server or starts it at the same address with the
// same data, and writes a line. With SCREENSHOTS=FOLDER it leaves pictures there.

import assert from "node:assert/strict"
import { createInterface } from "node:readline"
import { makeEntryIdUnsafe } from "effect/unstable/eventlog/EventJournal"
import { chromium } from "playwright-core"

import { Client } from "./client.mjs"
import { deadLetters, keys, sessions, writing } from "./console_acting.mjs"
import { longPayloads, manyLetters, typing } from "./console_care.mjs"
import { fill } from "./console_data.mjs"
import { access, entering, onlyLooking } from "./console_entering.mjs"
import { conflictsAndErasing } from "./console_erase.mjs"
import { leftOpen } from "./console_left_open.mjs"
import { names } from "./console_names.mjs"
import { newContext, shows, visit } from "./console_page.mjs"
import { phoneAndDark } from "./console_phone.mjs"
import { entries, feeds, hostile, stores } from "./console_stores.mjs"
import { Entry } from "./messages.mjs"
import { pause, step } from "./stock.mjs"

const [address, token, reader, executablePath] = process.argv.slice(2)
assert.ok(executablePath, "usage: node console.mjs HOST:PORT ADMIN_TOKEN READ_TOKEN CHROMIUM")

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const ask = async (what) => {
  console.log(what)
  await answers.next()
}

const base = `http://${address}`
const admin = async (method, path, body, headers = { authorization: `Bearer ${token}` }) => {
  const json = body === undefined ? {} : { "content-type": "application/json" }
  const response = await fetch(`${base}/admin/${path}`, { method, headers: { ...json, ...headers }, body: body && JSON.stringify(body) })
  return response
}
const write = async (store, entries) => {
  const response = await admin("POST", `stores/${encodeURIComponent(store)}/entries`, { entries })
  assert.equal(response.status, 200, await response.text())
}

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] })
const problems = []
const open = async (options) => {
  const page = await (await newContext(browser, options)).newPage()
  page.on("pageerror", (error) => problems.push(`${page.url()}: ${error}`))
  page.on("dialog", (dialog) => problems.push(`a dialog: ${dialog.message()}`))
  page.on("console", (message) => /Content Security Policy/.test(message.text()) && problems.push(message.text()))
  return page
}
const signIn = async (page, given) => {
  await page.goto(`${base}/console`)
  await page.fill("#token", given)
  await page.click("button.main")
  await page.waitForSelector("nav[aria-label=Views]")
}

await fill(write, admin)

// Writes all the time; nothing waits for it.
let busy = true
const load = (async () => {
  const entries = Array.from({ length: 10 }, (_, n) => ({ event: "Load", primaryKey: `${n}`, payload: "gaR0ZXh0omhp" }))
  while (busy) {
    // The server is stopped now and then.
    await admin("POST", "stores/busy/entries", { entries }).catch(() => {})
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
})()
// A client of the store `busy`, for as long as `run` takes.
const whileWriting = async (run) => {
  const client = await Client.connect(`ws://${address}/eventlog`, "loader")
  let [more, number] = [true, 0]
  const writes = (async () => {
    for (; more; await pause(50)) await client.write(number++, [new Entry({ id: makeEntryIdUnsafe(), event: "Load", primaryKey: "", payload: new Uint8Array(9) })])
  })()
  await Promise.all([writes, run().finally(() => (more = false))])
  client.close()
}
const page = await open()

const given = { page, base, address, token, reader, browser, open, signIn, admin, write, whileWriting }
await entering(given)
await stores(given)
await feeds(given)
await leftOpen(given)
await entries(given)
await conflictsAndErasing(given)
await hostile(given)
await keys(given)
await sessions(given)
await writing(given)
await deadLetters(given)
await manyLetters(given)
await longPayloads(given)
await typing(given)
await names(given)
await access(given)
await onlyLooking(given)

await step("keyboards reach everything, and each view has an address", async () => {
  await page.goto(`${base}/console#/stores/many?from=101`)
  await page.reload()
  await shows(page, "101 to 150 of 1,000")
  await page.keyboard.press("Tab")
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip")
  await page.keyboard.press("Enter")
  assert.equal(await page.evaluate(() => document.activeElement.id), "main")
  await page.goBack()
  await page.goForward()
  await shows(page, "101 to 150 of 1,000")
})

await phoneAndDark(given)

await step("it is back after a restart, once somebody signs in again", async () => {
  await visit(page, "#/stores/team")
  await shows(page, "Typed", ".feed")
  await ask("stop")
  await shows(page, "The server does not answer")
  await ask("start")
  await page.waitForSelector("#token")
  await shows(page, "The session has ended", ".lone")
  await page.fill("#token", token)
  await page.click("button.main")
  await shows(page, "Typed", ".feed")
  await write("team", [{ event: "Afterwards", primaryKey: "", payload: "" }])
  await shows(page, "Afterwards", ".feed")
})

busy = false
await load
assert.deepEqual(problems, [])
await browser.close()
process.exit(0)
