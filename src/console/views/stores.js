// All stores, with a search by name; they can be sorted by each figure.

import { html, useRef } from "../vendor/preact-htm.js"
import { api } from "../api.js"
import { bytes, count, rate, several } from "../format.js"
import { Code, Empty, Loaded, Page, StoreLink, Table, sorted, useData } from "../parts.js"
import { ask } from "../route.js"

// More rows than a table can show.
const MOST = 2_000
const SHOWN = 200

const LOOK_MS = 3_000

// All stores with their entries a second, from two requests.
const useStores = () => {
  const before = useRef(new Map())
  const load = async () => {
    const { items, more } = await api.stores(MOST)
    const at = performance.now()
    const rated = items.map((store) => {
      const last = before.current.get(store.storeId)
      return { ...store, rate: last ? Math.max(0, ((store.head - last.head) * 1000) / (at - last.at)) : 0 }
    })
    before.current = new Map(items.map(({ storeId, head }) => [storeId, { head, at }]))
    return { items: rated, more }
  }
  return useData(load, [], LOOK_MS)
}

const lag = ({ head, replayPosition }) => (replayPosition === undefined ? undefined : Math.max(0, head - replayPosition))

export const Stores = ({ route: { query } }) => {
  const data = useStores()
  const columns = [
    { name: "Store", sort: ({ storeId }) => storeId, show: ({ storeId }) => html`<${StoreLink} store=${storeId} />` },
    { name: "Entries/s", number: true, sort: (store) => store.rate, show: (store) => rate(store.rate) },
    { name: "Entries", number: true, sort: ({ entries }) => entries, show: ({ entries }) => count(entries) },
    { name: "Size", number: true, sort: ({ bytes }) => bytes, show: (store) => bytes(store.bytes) },
    { name: "Subscribers", number: true, sort: ({ subscribers }) => subscribers, show: ({ subscribers }) => count(subscribers) },
    { name: "Handlers behind", number: true, sort: (store) => lag(store) ?? -1, show: (store) => (lag(store) === undefined ? "–" : count(lag(store))) }
  ]
  const order = { by: query.sort ?? "Entries/s", down: query.up !== "1" }
  const search = (query.q ?? "").toLowerCase()
  return html`
    <${Page} title="Stores" about="A store is one feed of events. Every key that is assigned to it reads and writes it.">
      <${Loaded} data=${data}>${({ items, more }) => {
        if (items.length === 0) return html`<${NoStores} />`
        const found = items.filter(({ storeId }) => storeId.toLowerCase().includes(search))
        const shown = sorted(found, columns, order).slice(0, SHOWN)
        return html`
          <div class="tools">
            <label class="hidden" for="search">Find a store by its name</label>
            <input id="search" type="search" placeholder="Find a store by its name" value=${query.q ?? ""} onInput=${(event) => ask({ q: event.target.value })} />
            <p role="status">${said(found.length, shown.length, more)}</p>
          </div>
          ${found.length === 0
            ? html`<${Empty} title="No store matches"><p>The search looks for this text anywhere in a name. It ignores capitals.</p><//>`
            : html`<${Table} caption="Stores" columns=${columns} rows=${shown} id=${({ storeId }) => storeId} order=${order} onOrder=${({ by, down }) => ask({ sort: by, up: down ? "" : "1" })} />`}
        `
      }}<//>
    <//>
  `
}

const said = (found, shown, more) => {
  const all = more ? `. Only the first ${count(MOST)} by name are listed. Open others at #/stores/NAME` : ""
  return shown < found ? `${count(shown)} of ${several(found, "store")} shown${all}` : `${several(found, "store")}${all}`
}

const NoStores = () => html`
  <${Empty} title="No store has an entry yet">
    <p>A store exists once something is written to it. Try it in a terminal:</p>
    <${Code}>${"eventlog-server write --key bob --event Note --primary-key n1 --payload '{\"text\":\"hi\"}'"}<//>
  <//>
`
