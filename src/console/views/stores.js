// All stores, with a search by name. The server sorts all of them, and the page shows the first ones.

import { html, useRef } from "../vendor/preact-htm.js"
import { api } from "../api.js"
import { bytes, count, rate, several } from "../format.js"
import { Code, Empty, Loaded, Page, Search, StoreLink, Table, useData, useSettled } from "../parts.js"
import { ask } from "../route.js"

const SHOWN = 200

const LOOK_MS = 3_000

const lag = ({ head, replayPosition }) => (replayPosition === undefined ? undefined : Math.max(0, head - replayPosition))

// `sort`: what the server calls it.
const COLUMNS = [
  { name: "Store", sort: "name", show: ({ storeId }) => html`<${StoreLink} store=${storeId} />` },
  { name: "Entries/s", sort: "rate", number: true, show: (store) => rate(store.rate) },
  { name: "Entries", sort: "entries", number: true, show: ({ entries }) => count(entries) },
  { name: "Size", sort: "size", number: true, show: (store) => bytes(store.bytes) },
  { name: "Subscribers", sort: "subscribers", number: true, show: ({ subscribers }) => count(subscribers) },
  { name: "Handlers behind", sort: "lag", number: true, show: (store) => (lag(store) === undefined ? "–" : count(lag(store))) }
]

// The first stores in this order whose names contain a text. The server knows the rate of those that are open there; that of
// others, which another node may write to, comes from two answers.
const useStores = (sort, ascending, search) => {
  const before = useRef(new Map())
  const load = async () => {
    const { stores, more, lookedAt } = await api.stores(sort, ascending, SHOWN, search)
    const at = performance.now()
    const since = ({ storeId, head }) => {
      const last = before.current.get(storeId)
      return last ? Math.max(0, ((head - last.head) * 1000) / (at - last.at)) : 0
    }
    const items = stores.map((store) => ({ ...store, rate: store.entriesPerSecond ?? since(store) }))
    before.current = new Map(stores.map(({ storeId, head }) => [storeId, { head, at }]))
    return { items, more, lookedAt }
  }
  return useData(load, [sort, ascending, search], LOOK_MS, true)
}

export const Stores = ({ route: { query } }) => {
  const search = useSettled(query.q ?? "")
  const order = { by: query.sort ?? "Entries/s", down: query.up !== "1" }
  const { sort } = COLUMNS.find(({ name }) => name === order.by) ?? COLUMNS[1]
  const data = useStores(sort, !order.down, search)
  return html`
    <${Page} title="Stores" about="A store is one feed of events. Every key that is assigned to it reads and writes it. Rates and subscribers are those of this server.">
      <${Search} label="Find a store by its name" query=${query}>${data.value && said(data.value)}<//>
      <${Loaded} data=${data}>${({ items, lookedAt }) => {
        if (items.length === 0 && search === "") return html`<${NoStores} />`
        if (items.length === 0) return html`<${Empty} title="No store matches"><p>${lookedAt ? `There are too many stores to look at all of them in time: none of the first ${count(lookedAt)} matches.` : "The search looks for this text anywhere in a name. It ignores capitals."}</p><//>`
        return html`
          ${lookedAt && html`<p class="note warn">There are too many stores to sort all of them in time: this is the order of the first ${count(lookedAt)} by name. A search shows others.</p>`}
          <${Table} caption="Stores" columns=${COLUMNS} rows=${items} id=${({ storeId }) => storeId} order=${order} onOrder=${({ by, down }) => ask({ sort: by, up: down ? "" : "1" })} />
        `
      }}<//>
    <//>
  `
}

const said = ({ items: { length }, more }) => (more ? `the first ${several(length, "store")} in this order; a search shows others` : several(length, "store"))

const NoStores = () => html`
  <${Empty} title="No store has an entry yet">
    <p>A store exists once something is written to it. Try it in a terminal:</p>
    <${Code}>${"eventlog-server write --key bob --event Note --primary-key n1 --payload '{\"text\":\"hi\"}'"}<//>
  <//>
`
