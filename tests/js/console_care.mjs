// Tests that the console keeps what is typed, shows what is hidden, and answers any address; and that nobody has to guess where
// the focus is.

import assert from "node:assert/strict"

import { address, press, shows, visit } from "./console_page.mjs"
import { step, until } from "./stock.mjs"

const focused = (page) => page.evaluate(() => document.activeElement.tagName)

export const typing = async ({ page, admin }) => {
  await step("what is typed stays while the page changes", async () => {
    await visit(page, "#/write")
    await page.fill("#w-store", "team")
    await page.fill("#w-event", "Kept")
    await page.fill("#w-key", "k")
    await page.fill("#w-payload", '{"text": "k"}')
    await press(page, "SchemaBinary")
    assert.deepEqual(await Promise.all(["#w-store", "#w-event", "#w-key"].map((field) => page.inputValue(field))), ["team", "Kept", "k"])
    for (const [payload, said] of [
      ["9007199254740993", "A browser cannot keep the number 9007199254740993"],
      ["[1e400]", "A browser cannot keep the number 1e400"],
      [`${"[".repeat(9_000)}${"]".repeat(9_000)}`, "nested too deeply"]
    ]) {
      await page.fill("#w-payload", payload)
      await shows(page, said, ".write")
      assert.ok(await page.locator(".write button.main").isDisabled(), said)
    }
    await page.fill("#w-payload", '{"9007199254740993": 9007199254740992}')
    await until("it may be written", () => page.locator(".write button.main").isEnabled())

    await visit(page, "#/stores/store-3")
    await shows(page, "last sequence 1", ".about")
    await page.fill("#f-event", "Begun")
    await page.fill("#f-key", "none")
    // The page asks for the figures of the store every three seconds.
    for (let times = 0; times < 2; times++) await page.waitForResponse((response) => response.url().endsWith("/admin/stores/store-3"))
    assert.deepEqual([await page.inputValue("#f-event"), await page.inputValue("#f-key")], ["Begun", "none"])
    await press(page, "Live")
    await until("it is asked for", async () => /[?]event=Begun&key=none$/.test(await address(page)))
    await press(page, "Hold")
    await shows(page, "on hold", ".tools")
    assert.ok(!(await page.locator(".tools").first().innerText()).includes("not connected"))
  })

  await step("each address has an answer, and asks for no more than it needs", async () => {
    let asked = 0
    const count = () => asked++
    page.on("request", count)
    for (const [hash, said] of [
      ["#/stores/team/entry/abc", "There is no such view"],
      ["#/stores/team/entry/0", "There is no such view"],
      ["#/stores/team/entry", "There is no such view"],
      ["#/stores/team/foo", "There is no such view"],
      ["#/stores/team/constructor", "There is no such view"],
      ["#/stores/team?from=abc", "There is no such page"],
      ["#/keys/more", "There is no such view"],
      ["#/stores/..", "This store has no entries"]
    ]) {
      await page.evaluate((hash) => (location.hash = hash), hash)
      await shows(page, said)
    }
    page.off("request", count)
    assert.ok(asked < 60, `${asked} requests`)
  })

  await step("after each step of the keyboard the focus is on the heading", async () => {
    await visit(page, "#/overview")
    for (const name of ["Stores", "Keys", "Write"]) {
      await page.locator("nav[aria-label=Views] a", { hasText: name }).focus()
      await page.keyboard.press("Enter")
      await until(`the heading of ${name}`, async () => (await focused(page)) === "H1")
    }
    // This heading comes once the figures of the store are there.
    await visit(page, "#/stores")
    await page.locator("tbody a", { hasText: "store-4" }).focus()
    await page.keyboard.press("Enter")
    await shows(page, "store-4", "h1")
    await until("the heading of the store", async () => (await focused(page)) === "H1")
  })

  await step("characters without ink are shown, and their names can be typed", async () => {
    const hidden = "team\u{e0041}\u{e0001}\u034f\u2800\u202e"
    const seen = "team⟨E0041⟩⟨E0001⟩⟨034F⟩⟨2800⟩⟨202E⟩"
    const long = `${"l".repeat(200)} end`
    for (const key of [hidden, long]) assert.equal((await admin("PUT", `keys/${encodeURIComponent(key)}`, { storeId: "team" })).status, 200)
    await visit(page, "#/keys")
    await page.fill("#search", "team\u{e0041}")
    await shows(page, seen, "tbody")
    assert.ok(await page.getByRole("button", { name: `Remove ${seen}`, exact: true }).isVisible())
    for (const [search, name] of [["team\u{e0041}", seen], ["lll", long]]) {
      await page.fill("#search", search)
      await until("it alone", async () => (await page.locator("tbody tr").count()) === 1)
      await page.locator("tbody").getByText("Remove", { exact: true }).click()
      await shows(page, name, "dialog .field")
      await page.fill("#dialog-typed", name)
      await page.click("dialog .danger")
      await shows(page, "Nothing matches")
    }
    assert.equal((await admin("GET", `keys/${encodeURIComponent(hidden)}`)).status, 404)
    await page.fill("#search", "")
  })

  await step("a key that cannot be moved keeps its store", async () => {
    assert.equal((await admin("PUT", "keys/dora", { storeId: "team" })).status, 200)
    await visit(page, "#/keys?q=dora")
    await page.getByRole("button", { name: "Move dora", exact: true }).click()
    await page.fill("#m-to", "n".repeat(10_000))
    await page.fill("#dialog-typed", "dora")
    await page.click("dialog .danger")
    await page.waitForSelector("dialog .note.bad")
    await press(page, "Cancel")
    await shows(page, "team", "tbody")
    assert.equal((await (await admin("GET", "keys/dora")).json()).storeId, "team")
    assert.equal((await admin("DELETE", "keys/dora")).status, 200)
  })
}

// `doomed` entries become dead letters.
export const manyLetters = async ({ page, write, admin }) => {
  const here = async () => (await (await admin("GET", "groups/mail/dead-letters?storeId=doomed&limit=999")).json()).deadLetters.length
  await step("all dead letters can be reached, and a store shows its own", async () => {
    await write("doomed", Array.from({ length: 120 }, (_, n) => ({ event: "Doomed", primaryKey: `${n}`, payload: "" })))
    await until("they are given up", async () => (await here()) === 120)
    await visit(page, "#/stores/doomed/processing")
    await shows(page, "More than 100 dead letters here")
    await press(page, "More dead letters")
    await shows(page, "120 dead letters here")
    assert.equal(await page.locator(".letters li").count(), 120)
    await visit(page, "#/stores/many/processing")
    await shows(page, "No dead letters here")
  })

  await step("after a dialog the focus is where it was, or on the heading if that is gone", async () => {
    await visit(page, "#/stores/doomed/processing")
    await shows(page, "More than 100 dead letters here")
    const dismiss = page.locator(".letters").getByText("Dismiss", { exact: true }).first()
    await dismiss.click()
    await press(page, "Cancel")
    await until("the button", () => page.evaluate(() => document.activeElement.textContent === "Dismiss"))
    await dismiss.click()
    await page.click("dialog .danger")
    await until("it is gone", async () => (await here()) === 119)
    await until("the heading", async () => (await focused(page)) === "H1")
  })
}

// Payloads that the server sends only the beginning of.
export const longPayloads = async ({ page, write, admin }) => {
  await step("the beginning of a long payload is decoded", async () => {
    const text = Buffer.from("é".repeat(1024))
    const payloads = [Buffer.concat([Buffer.from([0x81, 0xa4]), Buffer.from("text"), Buffer.from([0xda, 0x08, 0x00]), text]), Buffer.concat([Buffer.from("a"), text])]
    await write("long", payloads.map((payload) => ({ event: "Long", primaryKey: "", payload: payload.toString("base64") })))
    const { payload } = await (await admin("POST", "schema-binary", { json: { text: "é".repeat(1024) } })).json()
    await write("long", [{ event: "Framed", primaryKey: "", payload }])
    await visit(page, "#/stores/long")
    await shows(page, '{"#bde64e3e":"ééé', ".feed")
    await shows(page, '{"text":"ééé', ".feed")
    await shows(page, "aééé", ".feed")
    // However long: its beginning, and how long it is.
    for (const letters of [100_000, 800_000]) {
      const { payload } = await (await admin("POST", "schema-binary", { json: { body: "ü".repeat(letters) } })).json()
      await write("long", [{ event: `Longer${letters}`, primaryKey: "", payload }])
      const line = page.locator(".feed li", { hasText: `Longer${letters}` })
      await until("its beginning", async () => /":"üüü.*…/.test(await line.innerText()))
      assert.match(await line.innerText(), /beginning of [\d.]+ (KiB|MiB)/)
    }
    await page.locator(".feed li a", { hasText: "Longer800000" }).click()
    await shows(page, "SchemaBinary, guessed", ".choice")
    await shows(page, '":"üüü', ".code")
    await shows(page, "This is the beginning of 1.5 MiB")
  })
}
