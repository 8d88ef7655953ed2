// What the tests of the console do with its pages: open one, go to a view, wait until it has settled, read it.

import assert from "node:assert/strict"
import { readFile } from "node:fs/promises"
import { createRequire } from "node:module"

import { PATIENCE_MILLIS, until } from "./stock.mjs"

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")

// Counts the requests of a page whose answers have not arrived.
const counting = () => {
  const request = window.fetch
  window.asking = 0
  window.fetch = async (...given) => {
    window.asking++
    try {
      const response = await request(...given)
      await response.clone().text()
      return response
    } finally {
      window.asking--
    }
  }
}

export const newContext = async (browser, options = {}) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options })
  context.setDefaultTimeout(PATIENCE_MILLIS)
  await context.addInitScript(counting)
  return context
}

// Waits until the page has shown what it was told, has asked for what that needs, and has shown the answers: a few frames in a row
// in which nothing is on its way. Lists that are requested again every few seconds are at rest in between.
export const settled = (page) =>
  page.evaluate(async (patience) => {
    const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))
    const moves = (animation) => animation.playState === "running" && animation.effect.getComputedTiming().endTime !== Infinity
    const busy = () => (window.asking > 0 && "requests") || (document.querySelector(".loading") && "loading") || (document.getAnimations().some(moves) && "moving")
    const deadline = performance.now() + patience
    for (let quiet = 0; quiet < 4; quiet++) {
      await frame()
      const why = busy()
      if (!why) continue
      if (performance.now() > deadline) throw new Error(`${location.hash} does not settle: ${why}`)
      quiet = -1
    }
  }, PATIENCE_MILLIS)

export const visit = async (page, hash) => {
  await page.evaluate((hash) => {
    const changed = new Promise((resolve) => addEventListener("hashchange", resolve, { once: true }))
    if (location.hash === hash) return
    location.hash = hash
    return changed
  }, hash)
  await settled(page)
}

export const press = (page, name) => page.getByRole("button", { name, exact: true }).first().click()

export const text = (page, selector = "main") => page.locator(selector).first().innerText()

export const shows = async (page, what, selector = "main") => {
  let last
  await until(`${what} is shown`, async () => (last = await text(page, selector)).includes(what)).catch((error) => {
    throw new Error(`${error.message}; instead: ${last?.slice(0, 2_000)}`)
  })
}

// The address as the page has it. What `page.url()` says may be late.
export const address = (page) => page.evaluate(() => location.href)

const findings = async (page) => {
  await settled(page)
  // The page's policy allows no other script; the debugger is exempt.
  const found = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`)
  const bad = found.violations.filter(({ impact }) => impact === "serious" || impact === "critical")
  return bad.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("; ")}`)
}

// The page must have no serious finding of axe. It may change while axe looks at it, so what axe finds counts if it finds it again.
export const serious = async (page, where) => {
  let found = await findings(page)
  for (let times = 0; times < 2 && found.length > 0; times++) found = await findings(page)
  assert.deepEqual(found, [], where)
}

const pictures = process.env.SCREENSHOTS

export const picture = async (page, name) => {
  if (!pictures) return
  await settled(page)
  await page.screenshot({ path: `${pictures}/${name}.png` })
}
