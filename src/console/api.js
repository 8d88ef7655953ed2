// Requests to the admin API, with the cookie of a session.
//
// The token is sent once, in exchange for a cookie that no script can read. A request that changes something is JSON
// from this origin: with a cookie, the server accepts nothing else.

const at = (path) => new URL(path, location.href.split(/[?#]/)[0]).href

// Why a request failed, in the server's words.
export class Problem extends Error {
  constructor(status, reason, detail, retryAfter) {
    super(detail)
    Object.assign(this, { status, reason, retryAfter })
  }
}

export const isAway = (error) => error instanceof Problem && error.status === 0

const listeners = new Set()

// Called when the session has ended ("signed-out", "signed-out-elsewhere" by another tab), and when the server is gone ("away") or back ("here").
export const onState = (listener) => {
  listeners.add(listener)
  return () => listeners.delete(listener)
}
const tell = (state) => listeners.forEach((listener) => listener(state))

// The tabs of a browser share one session.
const tabs = new BroadcastChannel("console")
tabs.onmessage = ({ data }) => data === "signed-out" && tell("signed-out-elsewhere")

const request = async (method, path, body) => {
  let response
  try {
    response = await fetch(at(path), {
      method,
      credentials: "same-origin",
      cache: "no-store",
      headers: method === "GET" ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body)
    })
  } catch {
    tell("away")
    throw new Problem(0, "away", "The server does not answer.")
  }
  tell("here")
  const text = await response.text()
  if (response.ok) return text === "" ? undefined : JSON.parse(text)
  let problem = {}
  try {
    problem = JSON.parse(text)
  } catch {
    problem = { detail: text.trim() || response.statusText }
  }
  if (response.status === 401 && path !== "console/session") tell("signed-out")
  throw new Problem(response.status, problem.reason, problem.detail, response.headers.get("retry-after"))
}

// A name as a part of a path. Browsers take `.` and `..` for steps in the path, in any spelling.
const name = (text) => {
  if (text === "." || text === "..") {
    throw new Problem(400, "unaddressable", `A browser cannot ask for the name “${text}”. Use the command line instead: eventlog-server tail, write and keys know it.`)
  }
  return encodeURIComponent(text)
}

// How many bytes of each payload are requested for lists.
export const SHOWN_MAX = 1024

const search = (query) => {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "")
  return given.length > 0 ? `?${new URLSearchParams(given)}` : ""
}

// How many pages are requested for one list. Pages of a search may be empty.
const PAGES_MAX = 10

// Up to `most` items of a list that comes in pages, and whether there may be more.
const all = async (path, list, most, query = {}) => {
  const items = []
  let [after, pages] = [undefined, 0]
  do {
    const page = await request("GET", `admin/${path}${search({ ...query, after, limit: Math.min(1000, most - items.length) })}`)
    items.push(...page[list])
    after = page.next
    pages++
  } while (after !== undefined && items.length < most && pages < PAGES_MAX)
  return { items, more: after !== undefined }
}

export const api = {
  session: () => request("GET", "console/session"),
  signIn: (token) => request("POST", "console/session", { token }),
  signOut: async () => {
    await request("DELETE", "console/session")
    tabs.postMessage("signed-out")
  },

  overview: () => request("GET", "admin/overview"),
  tokens: () => request("GET", "admin/tokens"),
  reload: () => request("POST", "admin/reload", {}),

  stores: (most, search) => all("stores", "stores", most, { search }),
  store: async (store) => request("GET", `admin/stores/${name(store)}`),
  entries: async (store, query) => request("GET", `admin/stores/${name(store)}/entries${search(query)}`),
  write: async (store, entries, runHandlers) =>
    request("POST", `admin/stores/${name(store)}/entries`, { runHandlers, entries }),

  erase: async (store, what) => request("POST", `admin/stores/${name(store)}/erase`, what),
  trim: async (store, before) => request("POST", `admin/stores/${name(store)}/trim`, { before }),

  schemaBinary: (json) => request("POST", "admin/schema-binary", { json }),

  // `wanted`: { storeId } or { search }.
  keys: (most, wanted) => all("keys", "keys", most, wanted),
  key: async (key) => request("GET", `admin/keys/${name(key)}`),
  assign: async (key, storeId) => request("PUT", `admin/keys/${name(key)}`, { storeId }),
  remove: async (key) => request("DELETE", `admin/keys/${name(key)}`),
  move: async (key, storeId) => request("POST", `admin/keys/${name(key)}/move`, { storeId }),
  signingKey: async (key) => request("GET", `admin/keys/${name(key)}/signing-key`),
  pin: async (key, signingKey) => request("PUT", `admin/keys/${name(key)}/signing-key`, { signingKey }),
  unpin: async (key) => request("DELETE", `admin/keys/${name(key)}/signing-key`),

  revocations: (most) => all("revocations", "revocations", most),
  revoke: (revocation) => request("POST", "admin/revocations", revocation),
  lift: (id) => request("DELETE", `admin/revocations/${name(id)}`),

  sessions: (most, search) => all("sessions", "sessions", most, { search }),
  closeSubscription: async (id, key) => request("DELETE", `admin/sessions/${id}/subscriptions/${name(key)}`),
  closeSession: (id) => request("DELETE", `admin/sessions/${id}`),

  groups: () => all("groups", "groups", 1000),
  groupsIn: (store) => all("groups", "groups", 1000, { storeId: store }),
  pause: (group) => request("POST", `admin/groups/${name(group)}/pause`, {}),
  resume: (group) => request("POST", `admin/groups/${name(group)}/resume`, {}),
  deadLetters: (group, storeId, most) => all(`groups/${name(group)}/dead-letters`, "deadLetters", most, { storeId }),
  retry: (group, storeId, sequence) =>
    request("POST", `admin/groups/${name(group)}/dead-letters/retry`, { storeId, sequence }),
  dismiss: (group, storeId, sequence) =>
    request("DELETE", `admin/groups/${name(group)}/dead-letters${search({ storeId, sequence })}`)
}

// The server's events while the page is visible: the connection is closed while it is hidden. Reconnects by itself.
export const follow = (path, onEvent, onLive = () => {}) => {
  let source, timer
  const close = () => {
    clearTimeout(timer)
    source?.close()
    source = undefined
  }
  const open = () => {
    close()
    if (document.hidden) return
    source = new EventSource(at(`admin/${path}`))
    source.onopen = () => {
      onLive(true)
      tell("here")
    }
    source.onmessage = ({ data }) => onEvent(JSON.parse(data))
    source.onerror = () => {
      onLive(false)
      close()
      // The next request shows whether the session has ended.
      timer = setTimeout(() => request("GET", "console/session").then(open, retry), 1000)
    }
  }
  const retry = (error) => {
    if (error.status === 401) return tell("signed-out")
    timer = setTimeout(open, 1000)
  }
  document.addEventListener("visibilitychange", open)
  open()
  return () => {
    document.removeEventListener("visibilitychange", open)
    close()
  }
}

// The whole store as lines of JSON.
export const exportPath = (store) => at(`admin/stores/${name(store)}/entries?as=lines`)

// The newest entries of a store that match, as they arrive.
export const livePath = (store, wanted) => `stores/${name(store)}/entries${search({ ...wanted, newest: 50, payloadMax: SHOWN_MAX })}`
