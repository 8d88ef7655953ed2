// Tests how the console shows conflicts of an entry, and erased entries.

import assert from "node:assert/strict"

import { picture, press, serious, shows, visit } from "./console_page.mjs"
import { step, until } from "./stock.mjs"

export const conflictsAndErasing = async ({ page }) => {
  await step("an entry that arrived after a later one of its key is a conflict", async () => {
    await visit(page, "#/stores/late/entry/1")
    await shows(page, "made before entry 1, arrived after it", ".feed")
    assert.deepEqual(await page.locator(".feed li", { hasText: "conflict" }).locator(".at").allInnerTexts(), ["2"])
  })

  await step("entries are erased once the name of their store was typed, and shown as erased", async () => {
    await visit(page, "#/stores/gone/entry/2")
    await shows(page, "a secret of b", ".code")
    await press(page, "Erase")
    const id = await page.inputValue("#e-ids")
    assert.match(id, /^[0-9a-f-]{36}$/)
    assert.ok(await page.locator("dialog .danger").isDisabled(), "before the name is typed")
    await serious(page, "erase")
    await picture(page, "erase")
    await page.fill("#dialog-typed", "gone")
    await page.click("dialog .danger")
    await shows(page, "1 entry erased.", ".said")
    await shows(page, "This entry was erased")
    assert.ok(!(await page.content()).includes("a secret of b"))
    await visit(page, "#/stores/gone")
    await press(page, "Erase")
    await page.fill("#e-key", "a")
    await page.fill("#dialog-typed", "gone")
    await page.click("dialog .danger")
    await shows(page, "3 entries erased.", ".said")
    await visit(page, "#/stores/gone?from=1")
    await until("what is left", async () => (await page.locator(".feed .at").allInnerTexts()).join() === "4,6")
    await visit(page, "#/stores/gone/entry/3")
    await shows(page, "This entry was erased")
    await serious(page, "an erased entry")
    await visit(page, "#/stores/gone")
    await press(page, "Erase")
    await press(page, "Entries by id")
    await page.fill("#e-ids", id.replace(/.$/, (c) => (c === "0" ? "1" : "0")))
    await page.fill("#dialog-typed", "gone")
    await page.click("dialog .danger")
    await shows(page, "the store does not know 1 id", ".said")
  })

  await step("a whole store is erased, with its keys", async () => {
    await visit(page, "#/stores/gone")
    await press(page, "Erase")
    await press(page, "The whole store")
    await serious(page, "erase a store")
    assert.ok(await page.locator("dialog .danger").isDisabled(), "before the name is typed")
    await page.fill("#dialog-typed", "gone")
    await page.click("dialog .danger")
    await shows(page, "1 key removed", ".said")
    await visit(page, "#/stores/gone/entry/4")
    await shows(page, "Entry 4")
    assert.ok(!(await page.content()).includes("a secret of c"))
    await visit(page, "#/stores/gone")
    await shows(page, "trimmed up to 6")
    await visit(page, "#/stores/gone/keys")
    await until("its key is gone", async () => !(await page.locator("main").innerText()).includes("guest"))
  })
}
