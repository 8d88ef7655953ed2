// Tests the console in Chromium. Exits with an error at the first failure.
//
//   node console.mjs HOST:PORT ADMIN_TOKEN READ_TOKEN CHROMIUM
//
// The server has both tokens, maps unknown keys to the store `default`, and a webhook `mail` that fails for each event `Doomed`.
// Where this prints `stop` or `start`, whoever runs it kills the server or starts it at the same address with the
// same data, and writes a line. With SCREENSHOTS=FOLDER it leaves pictures there.

import assert from "node:assert/strict"
import { readFile } from "node:fs/promises"
import { createInterface } from "node:readline"
import { makeEntryIdUnsafe } from "effect/unstable/eventlog/EventJournal"
import { chromium } from "playwright-core"

import { Client } from "./client.mjs"
import { fill, MARKUP, TURNED } from "./console_data.mjs"
import { longPayloads, manyLetters, reading, signingIn, typing } from "./console_care.mjs"
import { conflictsAndErasing } from "./console_erase.mjs"
import { leftOpen } from "./console_left_open.mjs"
import { address as addressOf, newContext, picture, press, serious, shows, text, visit } from "./console_page.mjs"
import { phoneAndDark } from "./console_phone.mjs"
import { Entry } from "./messages.mjs"
import { pause, step, until } from "./stock.mjs"

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

await step("without a token there is a page and nothing else", async () => {
  for (const path of ["admin/overview", "admin/stores", "admin/stores/team/entries", "admin/stores/team/entries?newest=9&as=events", "console/session"]) {
    assert.equal((await fetch(`${base}/${path}`)).status, 401, path)
  }
  const response = await page.goto(`${base}/console`)
  const policy = response.headers()["content-security-policy"]
  assert.ok(policy.includes("default-src 'none'") && !policy.includes("unsafe"), policy)
  await page.waitForSelector("#token")
  await serious(page, "sign in")
  await picture(page, "sign-in")
  await page.fill("#token", "wrong")
  await page.click("button.main")
  await shows(page, "The server does not have this token.", ".lone")
})

await step("a token in the address is used once, and is not in the reach of scripts", async () => {
  await page.goto("about:blank")
  await page.goto(`${base}/console#token=${token}`)
  await page.waitForSelector("nav[aria-label=Views]")
  assert.ok(!(await addressOf(page)).includes(token))
  assert.equal(await page.evaluate(() => document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)), "{}{}")
  const [cookie] = await page.context().cookies()
  assert.equal(cookie.httpOnly, true)
  assert.equal(cookie.sameSite, "Strict")
  await page.reload()
  await page.waitForSelector("nav[aria-label=Views]")
})

await signingIn({ base, token, open })

await step("a cookie changes nothing without this origin and JSON", async () => {
  const [{ name, value }] = await page.context().cookies()
  const cookie = `${name}=${value}`
  const assign = (headers) => admin("PUT", "keys/forged", { storeId: "team" }, { cookie, ...headers })
  assert.equal((await admin("GET", "keys", undefined, { cookie })).status, 200)
  assert.equal((await assign({})).status, 403)
  assert.equal((await assign({ origin: "http://127.0.0.1:1" })).status, 403)
  assert.equal((await assign({ origin: base, "content-type": "text/plain" })).status, 403)
  assert.equal((await admin("GET", "keys", undefined, { cookie, origin: "http://localhost:5173" })).status, 403)
  assert.equal((await admin("GET", "keys", undefined, { cookie, "sec-fetch-site": "same-site" })).status, 403)
  assert.equal((await admin("GET", "keys/forged")).status, 404)
  assert.equal((await assign({ origin: base })).status, 200)
  assert.equal((await admin("DELETE", "keys/forged")).status, 200)
})

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
  await serious(page, "stores")
  await picture(page, "stores")
})

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

await leftOpen({ browser, signIn, token, admin })

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

await conflictsAndErasing({ page })

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

await step("keys are assigned, moved, shut out, let in and removed", async () => {
  await visit(page, "#/keys")
  await page.fill("#a-key", "carol")
  await page.fill("#a-store", "team")
  await press(page, "Assign")
  await shows(page, "carol")
  const row = page.locator("tr", { hasText: "carol" }).first()
  await row.getByText("Move", { exact: true }).click()
  await page.fill("#m-to", "other")
  assert.ok(await page.locator("dialog .danger").isDisabled(), "before the name is typed")
  await page.fill("#dialog-typed", "carol")
  await picture(page, "move")
  await serious(page, "dialog")
  await page.click("dialog .danger")
  await until("moved", async () => (await (await admin("GET", "keys/carol")).json()).storeId === "other")
  await row.getByText("Revoke", { exact: true }).click()
  await page.fill("#r-why", "lost")
  await page.click("dialog .danger")
  await shows(page, "revoked", "table")
  await page.getByText("Let in again", { exact: true }).click()
  await shows(page, "Nobody is revoked.")
  await row.getByText("Pin", { exact: true }).click()
  await page.fill("#p-key", "ab".repeat(32))
  await page.click("dialog .danger")
  await until("pinned", async () => (await admin("GET", "keys/carol/signing-key")).status === 200)
  await row.getByText("Remove", { exact: true }).click()
  await page.fill("#dialog-typed", "carol")
  await page.click("dialog .danger")
  await until("removed", async () => (await admin("GET", "keys/carol")).status === 404)
  await serious(page, "keys")
  await picture(page, "keys")
})

await step("who is connected is shown with how far they are, closed and shut out", async () => {
  const client = await Client.connect(`ws://${address}/eventlog`, "bob")
  client.subscribe("bob", 1)
  await visit(page, "#/sessions")
  await shows(page, "up to date", "tbody")
  await shows(page, "bob in team", "tbody")
  await serious(page, "sessions")
  await picture(page, "sessions")
  await page.fill("#search", "no such")
  await shows(page, "Nothing matches")
  await page.fill("#search", "bob")
  await press(page, "End bob")
  await page.click("dialog .danger")
  // The client was told, and has no subscription until it asks for one.
  await shows(page, "Nothing matches")
  client.subscribe("bob", 1)
  await shows(page, "bob in team", "tbody")
  await page.getByRole("button", { name: /^Close \d+$/ }).click()
  await page.click("dialog .danger")
  await until("it is closed", () => client.failure)
  await shows(page, "Nothing matches")
  await page.fill("#search", "")
  await shows(page, "Nobody is connected")
  await page.fill("#search", "bob")
  const again = await Client.connect(`ws://${address}/eventlog`, "bob")
  again.subscribe("bob", 1)
  await shows(page, "bob in team", "tbody")
  await press(page, "Revoke bob")
  await page.click("dialog .danger")
  // The subscription with that key has ended; the connection is still there.
  await shows(page, "Nothing matches")
  assert.equal((await admin("DELETE", "revocations/key:bob")).status, 200)
  // A later step looks at it with a token that may only read.
  again.subscribe("bob", 1)
  await shows(page, "bob in team", "tbody")
})

await step("an event is written, and comes out of the feed", async () => {
  await visit(page, "#/write?store=team")
  await page.fill("#w-event", "Typed")
  await page.fill("#w-key", "t1")
  await page.fill("#w-payload", "{nonsense")
  await shows(page, "This is not JSON", ".write")
  assert.ok(await page.locator(".write button.main").isDisabled())
  await page.fill("#w-payload", '{"z": 1, "a": [1.5, null, "é", -40000, 1700000000000]}')
  await page.click(".write button.main")
  await shows(page, "It is in the feed")
  await shows(page, '{"z":1,"a":[1.5,null,"é",-40000,1700000000000]}', ".feed")
  await page.click("text=SchemaBinary")
  await page.fill("#w-payload", '{"text": "hi"}')
  await page.click(".write button.main")
  await shows(page, '"hi"}', ".feed")
  await serious(page, "write")
  await picture(page, "write")
})

await step("dead letters are tried again and dismissed", async () => {
  await visit(page, "#/stores/team/processing")
  const { head } = await (await admin("GET", "stores/team")).json()
  await shows(page, `At sequence ${head}: done with everything here.`)
  await visit(page, "#/processing")
  await shows(page, "dead letter")
  await serious(page, "processing")
  await picture(page, "processing")
  await page.locator(".letters").getByText("Try again", { exact: true }).first().click()
  await until("why it failed again", () => page.locator(".letters .note").count())
  await until("both", async () => (await page.locator(".letters li").count()) === 2)
  await page.locator(".letters").getByText("Dismiss", { exact: true }).first().click()
  await page.click("dialog .danger")
  await until("one less", async () => (await page.locator(".letters li").count()) === 1)
  await page.locator(".group").getByText("Pause", { exact: true }).click()
  await shows(page, "paused", ".group .badge")
  await page.locator(".group").getByText("Resume", { exact: true }).click()
  await shows(page, "runs", ".group .badge")
})

await manyLetters({ page, write, admin })

await longPayloads({ page, write, admin })

await typing({ page, admin })

await step("who is signed in is shown, and tokens are not", async () => {
  await visit(page, "#/access")
  await shows(page, "reader")
  assert.ok(!(await page.content()).includes(reader))
  await press(page, "Reload the configuration")
  await shows(page, "Applied: nothing")
  await serious(page, "access")
  await picture(page, "access")
})

await step("a token that only looks has no buttons, and is refused by the server too", async () => {
  const looker = await open()
  await signIn(looker, reader)
  const may = ["Sign out", "As stored", "As a new reader gets them", "Try again", "Hold", "Show", "Live", "First", "Earlier", "Later", "Last", "Copy", "More dead letters", "msgpack", "bytes"]
  for (const hash of ["#/overview", "#/stores", "#/stores/team", "#/stores/team/keys", "#/stores/team/processing", "#/stores/team/entry/1", "#/keys", "#/sessions", "#/processing", "#/access", "#/write"]) {
    await visit(looker, hash)
    const buttons = await looker.locator("button:not(.sort)").allInnerTexts()
    assert.deepEqual(buttons.filter((name) => !may.includes(name)), [], hash)
  }
  await reading({ looker })
  const refused = await looker.evaluate(async () => {
    const json = { "content-type": "application/json" }
    const all = [
      ["POST", "stores/team/entries", { entries: [] }], ["PUT", "keys/x", { storeId: "y" }], ["DELETE", "keys/ann"],
      ["POST", "keys/ann/release"], ["PUT", "keys/ann/signing-key", { signingKey: "ab" }], ["POST", "revocations", { subject: "x" }],
      ["POST", "groups/mail/pause"], ["POST", "groups/mail/resume"], ["DELETE", "groups/mail/dead-letters?all=true"],
      ["POST", "groups/mail/dead-letters/retry", { storeId: "team", sequence: 7 }], ["POST", "reload"], ["DELETE", "sessions/0"],
      ["DELETE", "sessions/0/subscriptions/bob"], ["DELETE", "keys/ann/signing-key"], ["DELETE", "revocations/key:bob"],
      ["POST", "stores/team/trim", { before: 2 }], ["POST", "stores/team/erase", { primaryKey: "todo-1" }]
    ]
    const ask = ([method, path, body]) => fetch(`admin/${path}`, { method, headers: json, body: JSON.stringify(body ?? {}) })
    return Promise.all(all.map(async (one) => `${one[1]} ${(await ask(one)).status}`))
  })
  assert.deepEqual(refused.filter((line) => !line.endsWith(" 403")), [])
  assert.equal((await (await admin("GET", "stores/team/entries?from=1&limit=1")).json()).entries[0].sequence, 1)
  await press(looker, "Sign out")
  await looker.waitForSelector("#token")
  assert.equal((await looker.context().cookies()).length, 0)
})

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

await phoneAndDark({ page, open, signIn, token, whileWriting })

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
