// The current view and its parameters, as the hash of the address: so a view can be shared.
//
//   #/stores/my%20store/feed?event=Note   ->   { path: ["stores", "my store", "feed"], query: { event: "Note" } }

import { useEffect, useState } from "./vendor/preact-htm.js"

export const parse = (hash) => {
  const [path, query] = hash.replace(/^#?\/?/, "").split("?")
  return {
    path: path.split("/").filter(Boolean).map(decode),
    query: Object.fromEntries(new URLSearchParams(query ?? ""))
  }
}

export const decode = (text) => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

// The link to a view. Empty values of `query` are left out.
export const link = (path, query = {}) => {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "")
  const search = given.length > 0 ? `?${new URLSearchParams(given)}` : ""
  return `#/${path.map(encodeURIComponent).join("/")}${search}`
}

export const go = (path, query) => {
  location.hash = link(path, query)
}

// A whole number of at least 1, as addresses and forms have them; otherwise undefined.
export const whole = (text) => (/^[1-9]\d{0,14}$/.test(text ?? "") ? Number(text) : undefined)

// The current view with other parameters, without a step in the browser's history.
export const ask = (query) => {
  const now = parse(location.hash)
  history.replaceState(null, "", link(now.path, { ...now.query, ...query }))
  dispatchEvent(new HashChangeEvent("hashchange"))
}

export const useRoute = () => {
  const [route, setRoute] = useState(() => parse(location.hash))
  useEffect(() => {
    const changed = () => setRoute(parse(location.hash))
    addEventListener("hashchange", changed)
    return () => removeEventListener("hashchange", changed)
  }, [])
  return route
}
