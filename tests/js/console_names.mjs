// Tests that the console shows stores and keys whose names no browser sends in a path.

import assert from "node:assert/strict"

import { press, shows, visit } from "./console_page.mjs"
import { step, until } from "./stock.mjs"

export const names = async ({ page, admin }) => {
  await step("stores and keys of dots are like any other", async () => {
    await visit(page, "#/write?store=..")
    await page.fill("#w-event", "Dotted")
    await page.fill("#w-key", ".")
    await page.click(".write button.main")
    await shows(page, "It is in the feed of ..")
    await visit(page, "#/stores?q=..")
    await page.locator("tbody a").getByText("..", { exact: true }).click()
    await shows(page, "1 entry", ".about")
    await shows(page, "Dotted", ".feed")
    await visit(page, "#/stores/../entry/1")
    await shows(page, "Dotted", ".facts")
    await visit(page, "#/stores/../keys")
    await page.fill("#a-key", ".")
    await press(page, "Assign")
    await until("it has the store", async () => (await (await admin("GET", "keys/-?name=.")).json()).storeId === "..")
    await page.getByRole("button", { name: "Remove .", exact: true }).click()
    await page.fill("#dialog-typed", ".")
    await page.click("dialog .danger")
    await shows(page, "No key has this store")
    await visit(page, "#/stores/..")
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByText("Export", { exact: true }).click()])
    assert.equal(await download.failure(), null)
    await press(page, "Erase")
    await press(page, "The whole store")
    await page.fill("#dialog-typed", "..")
    await page.click("dialog .danger")
    await shows(page, "1 entry erased", ".said")
  })
}
