// An application whose users have a session cookie, in about twenty lines: the sync server asks it who may do what. docs/AUTH.md
// explains it.
//
//   EVENTLOG_AUTH_HTTP_SECRET=whsec_… node examples/session.mjs [PORT [SECONDS]]
//
// It accepts every name, and keeps nothing after it ends. A real application has passwords and a database.
import { createHmac, randomUUID, timingSafeEqual } from "node:crypto"
import { createServer } from "node:http"
import { text } from "node:stream/consumers"

const [port = 7421, seconds = 60] = process.argv.slice(2).map(Number)
const secret = Buffer.from(process.env.EVENTLOG_AUTH_HTTP_SECRET.replace("whsec_", ""), "base64")
const teams = new Map([["ann", "red"], ["bob", "blue"]])
const users = new Map() // by session
const owners = new Map() // by public key: the first user who brings it owns it

// Whether the request is recent and comes from the sync server. The package `standardwebhooks` can check that too.
const isSigned = ({ "webhook-id": id, "webhook-timestamp": time, "webhook-signature": given = "" }, body) => {
  const own = createHmac("sha256", secret).update(`${id}.${time}.${body}`).digest()
  const hash = Buffer.from(given.replace("v1,", ""), "base64")
  return Math.abs(Date.now() / 1000 - time) < 300 && hash.length === own.length && timingSafeEqual(hash, own)
}

const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost")
  const sessionOf = (cookie) => cookie?.match(/session=([^;]*)/)?.[1]
  if (pathname === "/login") {
    const session = randomUUID()
    users.set(session, searchParams.get("user"))
    return response.setHeader("set-cookie", `session=${session}; HttpOnly; SameSite=Lax`).end()
  }
  if (pathname === "/logout") return response.end(`${users.delete(sessionOf(request.headers.cookie))}`)
  const body = await text(request)
  if (!isSigned(request.headers, body)) return response.writeHead(403).end()
  const { publicKey, headers } = JSON.parse(body)
  const user = users.get(sessionOf(headers.cookie))
  // Without this check, any user with a session could use the key of any other user.
  const allow = teams.has(user) && (owners.get(publicKey) ?? user) === user
  if (allow) owners.set(publicKey, user)
  response.end(JSON.stringify({ allow, storeId: teams.get(user), sub: user, ttlSeconds: seconds }))
})
server.listen(port, "127.0.0.1", () => console.log(`application at http://127.0.0.1:${server.address().port}`))
