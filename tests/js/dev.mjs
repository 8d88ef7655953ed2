import { chromium } from "playwright-core"
import { readFile } from "node:fs/promises"
import { fill } from "./console_data.mjs"
const [address, token, mode, ...views] = process.argv.slice(2)
const base = `http://${address}`
const admin = (method, path, body) => fetch(`${base}/admin/${path}`, { method, headers: { authorization: `Bearer ${token}`, "content-type": "application/json" }, body: body && JSON.stringify(body) })
const write = async (store, entries) => { const r = await admin("POST", `stores/${encodeURIComponent(store)}/entries`, { entries }); if (!r.ok) console.log(await r.text()) }
if (mode.includes("fill")) await fill(write, admin)
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] })
const phone = mode.includes("phone")
const context = await browser.newContext({ viewport: phone ? { width: 390, height: 844 } : { width: 1280, height: 860 }, colorScheme: mode.includes("dark") ? "dark" : "light" })
const page = await context.newPage()
page.on("console", (m) => console.log("console:", m.text()))
page.on("pageerror", (e) => console.log("pageerror:", e.message, e.stack?.split("\n")[1]))
await page.route("**/console/**", async (route) => {
  const path = new URL(route.request().url()).pathname.replace("/console/", "")
  if (path === "session") return route.continue()
  const body = await readFile(new URL(`../../src/console/${path}`, import.meta.url)).catch(() => undefined)
  if (!body) return route.continue()
  const type = { js: "text/javascript", css: "text/css", svg: "image/svg+xml" }[path.split(".").pop()]
  return route.fulfill({ body, contentType: type })
})
await page.goto(`${base}/console#token=${token}`)
await page.waitForSelector("nav[aria-label=Views]", { timeout: 5000 }).catch((e) => console.log(e.message))
for (const view of views) {
  const [hash, name] = view.split("=>")
  await page.evaluate((h) => (location.hash = h), hash)
  await page.waitForTimeout(1500)
  await page.screenshot({ path: `/tmp/con-shots/${name}.png`, fullPage: mode.includes("full") })
}
await browser.close()
