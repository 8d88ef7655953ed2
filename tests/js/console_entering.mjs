// Tests who gets into the console, and what a token that only looks may do there: nothing.

import assert from "node:assert/strict"

import { address as addressOf, picture, press, serious, shows, visit } from "./console_page.mjs"
import { step } from "./stock.mjs"

export const entering = async ({ page, base, token, open, admin }) => {
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
}

const signingIn = async ({ base, token, open }) => {
  await step("a first visit is no mistake, and a token may be pasted into an open page", async () => {
    const page = await open()
    await page.goto(`${base}/console`)
    await page.waitForSelector("#token")
    assert.equal(await page.locator("#why").innerText(), "")
    await page.goto(`${base}/console#token=wrong`)
    await shows(page, "The server does not have this token.", ".lone")
    assert.ok(!(await addressOf(page)).includes("wrong"))
    await page.goto(`${base}/console#token=${token}`)
    await page.waitForSelector("nav[aria-label=Views]")
    assert.ok(!(await addressOf(page)).includes(token))
    const other = await page.context().newPage()
    await other.goto(`${base}/console#/keys`)
    await shows(other, "A public key names a client")
    await page.getByRole("button", { name: "Sign out" }).click()
    await shows(other, "You signed out in another tab.", ".lone")
    await page.context().close()
  })
}

// The rights of tokens, as the page shows them.
export const access = async ({ page, reader }) => {
  await step("who is signed in is shown, and tokens are not", async () => {
    await visit(page, "#/access")
    await shows(page, "reader")
    assert.ok(!(await page.content()).includes(reader))
    await press(page, "Reload the configuration")
    await shows(page, "Applied: nothing")
    await serious(page, "access")
    await picture(page, "access")
  })
}

const reading = async ({ looker }) => {
  await visit(looker, "#/stores/never-written")
  await shows(looker, "This store has no entries")
  assert.equal(await looker.getByText("Write its first event").count(), 0)
}

export const onlyLooking = async ({ open, signIn, reader, admin }) => {
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
        ["POST", "keys/ann/release"], ["POST", "keys/ann/move", { storeId: "other" }], ["PUT", "keys/ann/signing-key", { signingKey: "ab" }], ["POST", "revocations", { subject: "x" }],
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
}
