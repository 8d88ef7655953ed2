// The login of an application in about twenty lines: a user with a session gets a token for the sync server. docs/AUTH.md explains it.
//
//   EVENTLOG_AUTH_JWT_SECRET=… node examples/login.mjs [PORT [SECONDS]]
//
// It knows ann and bob, checks no passwords, and keeps nothing after it ends. A real login has passwords and a database.
import { createHmac, randomUUID } from "node:crypto"
import { createServer } from "node:http"

const [port = 7421, seconds = 600] = process.argv.slice(2).map(Number)
const teams = new Map([["ann", "red"], ["bob", "blue"]])
const users = new Map() // by session
const owners = new Map() // by public key: the first user who brings it owns it

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url")
const sign = (text) => createHmac("sha256", process.env.EVENTLOG_AUTH_JWT_SECRET).update(text).digest("base64url")

const server = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost")
  if (pathname === "/login") {
    const session = randomUUID()
    users.set(session, searchParams.get("user"))
    return response.setHeader("set-cookie", `session=${session}; HttpOnly; SameSite=Lax`).end()
  }
  const user = users.get(request.headers.cookie?.match(/session=([^;]*)/)?.[1])
  const key = searchParams.get("key")
  // Without this check, any user could get a token for the key of any other user.
  if (!teams.has(user) || !key || (owners.get(key) ?? user) !== user) return response.writeHead(403).end()
  owners.set(key, user)
  const exp = Math.floor(Date.now() / 1000) + seconds
  const claims = { sub: user, exp, public_keys: [key], store_id: teams.get(user) }
  const signed = `${base64({ alg: "HS256", typ: "JWT" })}.${base64(claims)}`
  response.end(`${signed}.${sign(signed)}`)
})
server.listen(port, "127.0.0.1", () => console.log(`login at http://127.0.0.1:${server.address().port}`))
