// An application whose users have a session cookie, as small as it can be: the sync server asks it who may do what. docs/AUTH.md walks
// through it.
//
//   EVENTLOG_AUTH_HTTP_SECRET=whsec_… node examples/session.mjs [PORT [SECONDS]]
//
// It believes every name, and forgets everything when it ends; yours has passwords and a database.
import { createHmac, randomUUID, timingSafeEqual } from "node:crypto"
import { createServer } from "node:http"
import { text } from "node:stream/consumers"

const [port = 7421, seconds = 60] = process.argv.slice(2).map(Number)
const secret = Buffer.from(process.env.EVENTLOG_AUTH_HTTP_SECRET.replace("whsec_", ""), "base64")
const teams = new Map([["ann", "red"], ["bob", "blue"]])
const sessions = new Map() // session: user
const owners = new Map() // public key: user

const sessionOf = (cookie) => cookie?.match(/session=([^;]*)/)?.[1]
// Whether the sync server asks, and not long ago. The package `standardwebhooks` does that too.
const isSigned = (headers, body) => {
  const signed = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`
  const expected = Buffer.from(`v1,${createHmac("sha256", secret).update(signed).digest("base64")}`)
  const given = Buffer.from(headers["webhook-signature"] ?? "")
  const age = Math.abs(Date.now() / 1000 - headers["webhook-timestamp"])
  return age < 300 && given.length === expected.length && timingSafeEqual(given, expected)
}

createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost")
  if (pathname === "/login") {
    const session = randomUUID()
    sessions.set(session, searchParams.get("user"))
    return response.setHeader("set-cookie", `session=${session}; HttpOnly; SameSite=Lax`).end()
  }
  if (pathname === "/logout") return response.end(`${sessions.delete(sessionOf(request.headers.cookie))}`)
  const body = await text(request)
  if (pathname !== "/may" || !isSigned(request.headers, body)) return response.writeHead(403).end()
  const { publicKey, headers } = JSON.parse(body)
  const user = sessions.get(sessionOf(headers.cookie))
  // A key belongs to who came with it first. Without this everybody who has a session could use everybody's key.
  const allow = teams.has(user) && (owners.get(publicKey) ?? user) === user
  if (allow) owners.set(publicKey, user)
  response.end(JSON.stringify({ allow, storeId: teams.get(user), sub: user, ttlSeconds: seconds }))
}).listen(port, "127.0.0.1", function () {
  console.log(`application at http://127.0.0.1:${this.address().port}`)
})
