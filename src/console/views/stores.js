// All stores, with a search by name; they can be sorted by each figure.

import { html, useRef } from "../vendor/preact-htm.js"
import { api } from "../api.js"
import { bytes, count, rate, several } from "../format.js"
import { Code, Empty, Loaded, Page, Search, StoreLink, Table, sorted, useData, useSettled } from "../parts.js"
import { ask } from "../route.js"

// More rows than a table can show.
const MOST = 2_000
const SHOWN = 200

const LOOK_MS = 3_000

// The stores whose names contain a text, with their entries a second, from two requests.
const useStores = (search) => {
  const before = useRef(new Map())
  const load = async () => {
    const { items, more } = await api.stores(MOST, search)
    const at = performance.now()
    const rated = items.map((store) => {
      const last = before.current.get(store.storeId)
      return { ...store, rate: last ? Math.max(0, ((store.head - last.head) * 1000) / (at - last.at)) : 0 }
    })
    for (const { storeId, head } of items) before.current.set(storeId, { head, at })
    return { items: rated, more }
  }
  return useData(load, [search], LOOK_MS)
}

const lag = ({ head, replayPosition }) => (replayPosition === undefined ? undefined : Math.max(0, head - replayPosition))

export const Stores = ({ route: { query } }) => {
  const search = useSettled(query.q ?? "")
  const data = useStores(search)
  const columns = [
    { name: "Store", sort: ({ storeId }) => storeId, show: ({ storeId }) => html`<${StoreLink} store=${storeId} />` },
    { name: "Entries/s", number: true, sort: (store) => store.rate, show: (store) => rate(store.rate) },
    { name: "Entries", number: true, sort: ({ entries }) => entries, show: ({ entries }) => count(entries) },
    { name: "Size", number: true, sort: ({ bytes }) => bytes, show: (store) => bytes(store.bytes) },
    { name: "Subscribers", number: true, sort: ({ subscribers }) => subscribers, show: ({ subscribers }) => count(subscribers) },
    { name: "Handlers behind", number: true, sort: (store) => lag(store) ?? -1, show: (store) => (lag(store) === undefined ? "–" : count(lag(store))) }
  ]
  const order = { by: query.sort ?? "Entries/s", down: query.up !== "1" }
  return html`
    <${Page} title="Stores" about="A store is one feed of events. Every key that is assigned to it reads and writes it.">
      <${Search} label="Find a store by its name" query=${query}>${data.value && said(data.value)}<//>
      <${Loaded} data=${data}>${({ items, more }) => {
        if (items.length === 0 && search === "") return html`<${NoStores} />`
        if (items.length === 0) return html`<${Empty} title="No store matches"><p>${more ? "There are too many stores to look at all of them here, and none of the first matches." : "The search looks for this text anywhere in a name. It ignores capitals."}</p><//>`
        const rows = sorted(items, columns, order).slice(0, SHOWN)
        return html`<${Table} caption="Stores" columns=${columns} rows=${rows} id=${({ storeId }) => storeId} order=${order} onOrder=${({ by, down }) => ask({ sort: by, up: down ? "" : "1" })} />`
      }}<//>
    <//>
  `
}

const said = ({ items: { length }, more }) => `${more ? "the first " : ""}${several(length, "store")}${length > SHOWN ? `, ${count(SHOWN)} shown` : ""}${more ? "; there are more, so search" : ""}`

const NoStores = () => html`
  <${Empty} title="No store has an entry yet">
    <p>A store exists once something is written to it. Try it in a terminal:</p>
    <${Code}>${"eventlog-server write --key bob --event Note --primary-key n1 --payload '{\"text\":\"hi\"}'"}<//>
  <//>
`
