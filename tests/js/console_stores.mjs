// Tests what the console shows of the server, of its stores, and of an entry.

import assert from "node:assert/strict"
import { readFile } from "node:fs/promises"

import { TURNED, MARKUP } from "./console_data.mjs"
import { address as addressOf, picture, press, serious, shows, text, visit } from "./console_page.mjs"
import { step, until } from "./stock.mjs"

export const stores = async ({ page, whileWriting }) => {
  await step("the overview says what happens and what is not well", async () => {
    await visit(page, "#/overview")
    await shows(page, "Entries/s")
    await shows(page, "Dead letters of the group \"mail\": 2.")
    await until("charts", () => page.locator(".chart canvas").count())
    const tile = (name) => page.locator(".tile", { hasText: name }).innerText()
    await whileWriting(() => until("acks, connections", async () => /[\d.]+ (µs|ms|s)\n.*within [\d.]+/.test(await tile("Acknowledged in")) && /\n1\n/.test(await tile("Connections"))))
    assert.equal(await page.locator(".tile", { hasText: "Nodes" }).locator("b").innerText(), "1")
    await serious(page, "overview")
  })

  await step("stores are found and sorted", async () => {
    await visit(page, "#/stores")
    await shows(page, "team")
    const [asked] = await Promise.all([page.waitForRequest(/search=/), page.fill("#search", "STORE-1")])
    assert.ok(asked.url().includes("search=STORE-1"), "the server looks at all of them")
    await until("those found", async () => (await page.locator("tbody tr").count()) === 11)
    assert.ok((await addressOf(page)).includes("q=STORE-1"))
    await page.fill("#search", "no such")
    await shows(page, "No store matches")
    await page.fill("#search", "")
    await page.click("th button:has-text('Entries')  >> nth=1")
    await until("the largest first", async () => /many|busy/.test(await text(page, "tbody tr")))
    const focused = () => page.evaluate(() => document.activeElement.textContent)
    assert.equal(await focused(), "Entries↓", "the keyboard is where it was")
    const [sorting] = await Promise.all([page.waitForRequest(/sort=size/), page.click("th button:has-text('Size')")])
    assert.ok(sorting.url().includes("limit=200"), "the server sorts all of them, and sends the first ones")
    await until("the largest first", async () => (await text(page, "tbody tr")).includes("<img"))
    await page.click("th button:has-text('Size')")
    await until("the smallest first", async () => (await text(page, "tbody tr")).startsWith("fast"))
    await serious(page, "stores")
    await picture(page, "stores")
  })
}

export const feeds = async ({ page, write }) => {
  await step("a feed is live, and pages by sequence, event and key", async () => {
    await visit(page, "#/stores/team")
    await shows(page, "live", ".tools")
    await write("team", [{ event: "Fresh", primaryKey: "now", payload: "gaR0ZXh0omhp" }])
    await shows(page, "Fresh", ".feed li")
    await serious(page, "feed")
    await picture(page, "feed")
    await page.fill("#f-event", "Renamed")
    await page.click(".filter button")
    await until("one event alone", async () => {
      const events = await page.locator(".feed .event").allInnerTexts()
      return events.length > 0 && events.every((event) => event === "Renamed")
    })
    await press(page, "Live")
    await shows(page, "live", ".tools")
    await write("team", [{ event: "Other", primaryKey: "now", payload: "" }, { event: "Renamed", primaryKey: "live", payload: "" }])
    await shows(page, "live", ".feed")
    assert.deepEqual([...new Set(await page.locator(".feed .event").allInnerTexts())], ["Renamed"])
    await visit(page, "#/stores/many?from=101")
    await shows(page, "101 to 150 of 1,000")
    await press(page, "Later")
    await shows(page, "151 to 200 of 1,000")
    await press(page, "Last")
    await shows(page, "951 to 1,000 of 1,000")
    await visit(page, "#/stores/team?from=1&key=nowhere")
    await shows(page, "No entry matches")
  })

  await step("a feed is shown from a time on", async () => {
    const made = (day) => Date.parse(`${day}T12:00:00Z`).toString(16).padStart(12, "0")
    const id = (day) => made(day).replace(/^(.{8})(.{4})$/, "$1-$2-7000-8000-000000000001")
    await write("aged", ["2023-01-01", "2024-01-01", "2025-01-01"].map((day) => ({ id: id(day), event: "Made", primaryKey: day, payload: "" })))
    await visit(page, "#/stores/aged")
    await shows(page, "last sequence 3", ".about")
    await page.fill("#f-time", "2023-06-01T00:00:00")
    await press(page, "Show")
    await shows(page, "2 to 3 of 3")
    assert.deepEqual(await page.locator(".feed .key").allInnerTexts(), ["2024-01-01", "2025-01-01"])
  })

  await step("a store is exported whole, and not a page of it", async () => {
    await visit(page, "#/stores/many")
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByText("Export", { exact: true }).click()])
    assert.equal(download.suggestedFilename(), "many.ndjson")
    const lines = (await readFile(await download.path(), "utf8")).trimEnd().split("\n")
    assert.equal(lines.length, 1002)
    assert.deepEqual(JSON.parse(lines.at(-1)), { end: "many", entries: 1000 })
  })

  await step("a feed is trimmed once the name of its store was typed", async () => {
    await visit(page, "#/stores/store-7")
    await write("store-7", Array.from({ length: 9 }, () => ({ event: "Further", primaryKey: "", payload: "" })))
    await shows(page, "last sequence 10", ".about")
    await press(page, "Trim")
    await page.fill("#t-first", "5")
    assert.ok(await page.locator("dialog .danger").isDisabled(), "before the name is typed")
    await page.fill("#dialog-typed", "store-7")
    await serious(page, "trim")
    await page.click("dialog .danger")
    await shows(page, "trimmed up to 4", ".about")
    await visit(page, "#/stores/store-7?from=1")
    await shows(page, "5 to 10 of 10")
  })

  await step("a feed that is too fast to read is sampled, and says so", async () => {
    await visit(page, "#/stores/fast")
    const entries = Array.from({ length: 2000 }, (_, n) => ({ event: "Tick", primaryKey: `${n}`, payload: "gA==" }))
    await shows(page, "live", ".tools")
    await until("sampled", async () => {
      await write("fast", entries)
      return (await text(page, ".tools")).includes("sampled")
    })
    assert.ok((await page.locator(".feed li").count()) <= 100)
  })
}

export const entries = async ({ page }) => {
  await step("an entry shows who, when and what, and what else was said of its key", async () => {
    await visit(page, "#/stores/team/entry/1")
    await shows(page, "server")
    await shows(page, "\"text\": \"milk\"", ".code")
    await until("the history of its key", async () => (await page.locator(".feed li").count()) === 2)
    await press(page, "As a new reader gets them")
    await until("the latest alone", async () => (await page.locator(".feed li").count()) === 1)
    await shows(page, "oat milk", ".feed")
    await press(page, "As stored")
    for (const [sequence, codec] of [[3, "SchemaBinary, guessed"], [4, "JSON"], [5, "text"], [6, "bytes"]]) {
      await visit(page, `#/stores/team/entry/${sequence}`)
      await shows(page, codec, ".choice")
    }
    await visit(page, "#/stores/team/entry/999")
    await shows(page, "There is no such entry")
    await visit(page, "#/stores/team/entry/1")
    await shows(page, "milk", ".code")
    await serious(page, "entry")
    await picture(page, "entry")
  })
}

export const hostile = async ({ page }) => {
  await step("names and payloads of those who mean harm are text", async () => {
    await visit(page, `#/stores/${encodeURIComponent(MARKUP)}`)
    await shows(page, MARKUP, "h1")
    await until("entries", () => page.locator(".feed li").count())
    const shown = await text(page, ".feed")
    assert.ok(shown.includes(MARKUP) && !shown.includes("\u202e") && shown.includes("⟨202E⟩"), shown)
    await page.locator(".feed li a", { hasText: "⟨2066⟩" }).click()
    await shows(page, "⟨0000⟩⟨001B⟩[2J⟨2066⟩")
    await visit(page, `#/stores/${encodeURIComponent(MARKUP)}/entry/1`)
    await shows(page, `ann⟨202E⟩gnp.exe ${MARKUP}`, ".code")
    await visit(page, `#/stores/${encodeURIComponent(MARKUP)}/entry/2`)
    await shows(page, "This is the beginning of 1 MiB")
    await visit(page, "#/keys")
    await shows(page, TURNED.replace("\u202e", "⟨202E⟩"))
    await visit(page, "#/overview")
    assert.equal(await page.evaluate(() => window.harmed), undefined)
    assert.equal(await page.locator("main img, main script, main iframe").count(), 0)
  })
}
