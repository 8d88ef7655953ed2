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

// How many bytes of each payload are requested for lists.
export const SHOWN_MAX = 1024

const search = (query) => {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "")
  return given.length > 0 ? `?${new URLSearchParams(given)}` : ""
}

// Browsers take `.` and `..` in a path for steps, in any spelling.
const isStep = (name) => name === "." || name === ".."

// The path of what is `below` something with this name. A name that cannot be in a path is in the query.
const named = (list, name, below = "", query = {}) =>
  `${list}/${isStep(name) ? "-" : encodeURIComponent(name)}${below}${search(isStep(name) ? { name, ...query } : query)}`

// The same for groups of handlers, whose names are chosen in the configuration or in code.
const group = (name, below) => {
  if (isStep(name)) throw new Problem(400, "unaddressable", `A browser cannot ask for a group with the name “${name}”: give it another one.`)
  return `admin/groups/${encodeURIComponent(name)}${below}`
}

// How many pages are requested for one list. Pages of a search may be empty.
const PAGES_MAX = 10

// Up to `most` items of a list that comes in pages, and whether there may be more.
const all = async (path, list, most, query = {}) => {
  const items = []
  let [after, pages] = [undefined, 0]
  do {
    const page = await request("GET", `${path}${search({ ...query, after, limit: Math.min(1000, most - items.length) })}`)
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

  // The first stores in this order, of all that match.
  stores: (sort, ascending, most, name) =>
    request("GET", `admin/stores${search({ sort, ascending, limit: most, search: name })}`),
  store: (store) => request("GET", `admin/${named("stores", store)}`),
  entries: (store, query) => request("GET", `admin/${named("stores", store, "/entries", query)}`),
  write: (store, entries, runHandlers) =>
    request("POST", `admin/${named("stores", store, "/entries")}`, { runHandlers, entries }),

  erase: (store, what) => request("POST", `admin/${named("stores", store, "/erase")}`, what),
  trim: (store, before) => request("POST", `admin/${named("stores", store, "/trim")}`, { before }),

  schemaBinary: (json) => request("POST", "admin/schema-binary", { json }),

  // `wanted`: { storeId } or { search }.
  keys: (most, wanted) => all("admin/keys", "keys", most, wanted),
    assign: (key, storeId) => request("PUT", `admin/${named("keys", key)}`, { storeId }),
  remove: (key) => request("DELETE", `admin/${named("keys", key)}`),
  move: (key, storeId) => request("POST", `admin/${named("keys", key, "/move")}`, { storeId }),
  signingKey: (key) => request("GET", `admin/${named("keys", key, "/signing-key")}`),
  pin: (key, signingKey) => request("PUT", `admin/${named("keys", key, "/signing-key")}`, { signingKey }),
  unpin: (key) => request("DELETE", `admin/${named("keys", key, "/signing-key")}`),

  revocations: (most) => all("admin/revocations", "revocations", most),
  revoke: (revocation) => request("POST", "admin/revocations", revocation),
  lift: (id) => request("DELETE", `admin/${named("revocations", id)}`),

  sessions: (most, search) => all("admin/sessions", "sessions", most, { search }),
  closeSubscription: (id, key) => request("DELETE", `admin/${named(`sessions/${id}/subscriptions`, key)}`),
  closeSession: (id) => request("DELETE", `admin/sessions/${id}`),

  groups: () => all("admin/groups", "groups", 1000),
  groupsIn: (store) => all("admin/groups", "groups", 1000, { storeId: store }),
  pause: async (name) => request("POST", group(name, "/pause"), {}),
  resume: async (name) => request("POST", group(name, "/resume"), {}),
  deadLetters: async (name, storeId, most) => all(group(name, "/dead-letters"), "deadLetters", most, { storeId }),
  retry: async (name, storeId, sequence) => request("POST", group(name, "/dead-letters/retry"), { storeId, sequence }),
  dismiss: async (name, storeId, sequence) => request("DELETE", `${group(name, "/dead-letters")}${search({ storeId, sequence })}`)
}

// The server's events while the page is visible: the connection is closed while it is hidden. Reconnects by itself, until the
// returned function is called.
export const follow = (path, onEvent, onLive = () => {}) => {
  let source, timer
  let isOver = false
  const close = () => {
    clearTimeout(timer)
    source?.close()
    source = undefined
  }
  const open = () => {
    close()
    if (document.hidden || isOver) return
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
    if (isOver) return
    if (error.status === 401) return tell("signed-out")
    timer = setTimeout(open, 1000)
  }
  document.addEventListener("visibilitychange", open)
  open()
  return () => {
    isOver = true
    document.removeEventListener("visibilitychange", open)
    close()
  }
}

// The whole store as lines of JSON.
export const exportPath = (store) => at(`admin/${named("stores", store, "/entries", { as: "lines" })}`)

// The newest entries of a store that match, as they arrive.
export const livePath = (store, wanted) => named("stores", store, "/entries", { ...wanted, newest: 50, payloadMax: SHOWN_MAX })
