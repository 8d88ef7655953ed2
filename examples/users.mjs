// What an application already has, for login.mjs and session.mjs: users with sessions, and whose key is whose.
//
// It accepts every name, and keeps nothing after it ends. A real application has passwords and a database.
import { randomUUID } from "node:crypto"

const teams = new Map([["ann", "red"], ["bob", "blue"]])
const users = new Map() // by session
const owners = new Map() // by public key: the first user who brings it owns it

const sessionIn = (cookie = "") => cookie.match(/(?:^|; )session=([^;]*)/)?.[1]

export const logIn = (user, response) => {
  const session = randomUUID()
  users.set(session, user)
  response.setHeader("set-cookie", `session=${session}; HttpOnly; SameSite=Lax`).end()
}
export const logOut = (cookie) => users.delete(sessionIn(cookie))
export const userOf = (cookie) => users.get(sessionIn(cookie))
export const teamOf = (user) => teams.get(user)

// Whether the user may have this public key. Without this check, any user could use the key of any other user.
export const owns = (user, key) => {
  if (!teams.has(user) || !key) return false
  if (!owners.has(key)) owners.set(key, user)
  return owners.get(key) === user
}
