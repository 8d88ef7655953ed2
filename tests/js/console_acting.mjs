// Tests what somebody does with the console: to keys and connections, with an event of their own, with dead letters.

import assert from "node:assert/strict"

import { Client } from "./client.mjs"
import { picture, press, serious, shows, visit } from "./console_page.mjs"
import { step, until } from "./stock.mjs"

export const keys = async ({ page, admin }) => {
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
}

export const sessions = async ({ page, admin, address }) => {
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
}

export const writing = async ({ page }) => {
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
}

export const deadLetters = async ({ page, admin }) => {
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
}
