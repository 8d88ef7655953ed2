// Tests the console on a phone, and dark.

import assert from "node:assert/strict"

import { picture, serious, settled, visit } from "./console_page.mjs"
import { step, until } from "./stock.mjs"

const charts = (page) => until("charts", () => page.locator(".chart canvas").count())

// The page is no wider than the screen, and each view can be tapped.
const fits = async (page, where) => {
  const { wide, beside, views } = await page.evaluate(() => {
    const beside = (element) => element.getBoundingClientRect().right > innerWidth
    const all = (selector) => [...document.querySelectorAll(selector)].filter(beside).map(({ outerHTML }) => outerHTML.slice(0, 200))
    return { wide: document.documentElement.scrollWidth - innerWidth, beside: all("#app *").slice(0, 8), views: all(".side nav a") }
  })
  assert.ok(wide <= 0, `${where} is ${wide} pixels too wide: ${beside.join(" ")}`)
  assert.deepEqual(views, [], where)
}

export const phoneAndDark = async ({ page, open, signIn, token, whileWriting }) => {
  await step("dark, and on a phone, it is as usable", async () => {
    const phone = await open({ viewport: { width: 390, height: 844 }, colorScheme: "dark", deviceScaleFactor: 2 })
    // Charts do not wait for a style sheet of their own: without it they would be twice as wide.
    await phone.route("**/uPlot.css", (route) => route.abort())
    await signIn(phone, token)
    await charts(phone)
    await fits(phone, "what is there first")
    for (const [hash, name, ready] of [
      ["#/overview", "overview", ".chart canvas"],
      ["#/stores", "stores", "tbody tr"],
      ["#/stores/team", "feed", ".feed li"],
      ["#/stores/team/entry/1", "entry", ".feed li"],
      ["#/keys", "keys", "tbody tr"],
      ["#/sessions", "sessions", "tbody tr"],
      ["#/processing", "processing", ".group"],
      ["#/write", "write", "form"],
      ["#/access", "access", "tbody tr"]
    ]) {
      await visit(phone, hash)
      await phone.waitForSelector(ready)
      await settled(phone)
      await fits(phone, hash)
      await serious(phone, `${hash}, dark, on a phone`)
      await picture(phone, `phone-dark-${name}`)
    }
    await phone.context().close()
    const dark = await open({ colorScheme: "dark" })
    await signIn(dark, token)
    await visit(page, "#/overview")
    await Promise.all([charts(dark), charts(page)])
    const acks = (page) => until("acks", async () => !(await page.locator(".tile", { hasText: "Acknowledged in" }).innerText()).includes("–"))
    await whileWriting(async () => {
      await Promise.all([acks(dark), acks(page)])
      await serious(dark, "overview, dark")
      await picture(dark, "overview-dark")
      await picture(page, "overview")
    })
    await dark.context().close()
  })
}
