// Tests a console that is left open: its memory does not grow with the events that it gets.

import assert from "node:assert/strict"

import { newContext, settled, visit } from "./console_page.mjs"
import { step, until } from "./stock.mjs"

export const leftOpen = async ({ browser, signIn, token, admin }) => {
  await step("a page that is left open holds no more after many events than after some", async () => {
    const context = await newContext(browser)
    // Events come one at a time, as fast as the page shows them.
    await context.addInitScript(() => {
      window.EventSource = class {
        constructor(url) {
          this.url = url
          window.source = this
          setTimeout(() => this.onopen?.())
        }
        close() {}
      }
    })
    const left = await context.newPage()
    const debug = await context.newCDPSession(left)
    const nodes = async () => {
      await debug.send("HeapProfiler.collectGarbage")
      return (await debug.send("Memory.getDOMCounters")).nodes
    }
    const tell = (event, count) =>
      left.evaluate(
        async ([event, count]) => {
          for (let number = 0; number < count; number++) {
            const head = (window.head = (window.head ?? 1_000_000) + 50)
            if (event.row) event.row[0] += 2_000
            const entries = event.entries?.map((entry, at) => ({ ...entry, sequence: head - 49 + at }))
            window.source.onmessage({ data: JSON.stringify(entries ? { head, passedOver: 9, entries } : event) })
            await new Promise((resolve) => setTimeout(resolve))
          }
        },
        [event, count]
      )
    await signIn(left, token)
    const { rows, fields, ...now } = await (await admin("GET", "overview")).json()
    const overview = { ...now, row: fields.map((_, at) => (at === 0 ? Date.now() : at)) }
    const { entries } = await (await admin("GET", "stores/many/entries?newest=50&payloadMax=1024")).json()
    const feed = { entries }
    for (const [hash, event, path] of [["#/overview", overview, "overview"], ["#/stores/many", feed, "stores/many"]]) {
      await visit(left, hash)
      await until("it is followed", () => left.evaluate((path) => window.source?.url.includes(path) && window.source.onmessage !== undefined, path))
      await tell(event, 40)
      const some = await nodes()
      await tell(event, 80)
      // What is not needed any more may be there until the next collection, or the one after it.
      let many
      await until("they are as many", async () => (many = await nodes()) < some + 500).catch(() => assert.fail(`${hash}: ${some} nodes, then ${many}`))
    }
    await context.close()
  })
  await step("a view that was left follows nothing any more", async () => {
    const context = await newContext(browser)
    await context.addInitScript(() => {
      window.sources = 0
      window.EventSource = class {
        constructor() {
          window.sources++
          window.source = this
        }
        close() {}
      }
    })
    const left = await context.newPage()
    await signIn(left, token)
    await visit(left, "#/overview")
    await until("it is followed", () => left.evaluate(() => window.source?.onerror !== undefined))
    let answer
    await left.route("**/console/session", (route) => (answer = () => route.continue()))
    // The stream breaks, and the page asks whether it is still signed in; meanwhile somebody goes to another view.
    await left.evaluate(() => window.source.onerror())
    await until("it asks", () => answer)
    await left.evaluate(() => (location.hash = "#/access"))
    await until("the other view", async () => (await left.locator("h1").innerText()) === "Access")
    const [before] = await Promise.all([left.evaluate(() => window.sources), left.waitForResponse("**/console/session"), answer()])
    await settled(left)
    assert.equal(await left.evaluate(() => window.sources), before)
    await context.close()
  })
}
