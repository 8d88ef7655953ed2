// Erases entries of a store, or the whole store after its name was typed.

import { html, useState } from "../vendor/preact-htm.js"
import { api } from "../api.js"
import { several } from "../format.js"
import { Dialog, Field, say } from "../parts.js"

// The result in words.
const told = ({ erased, unknown, quarantined, keys = 0 }) => {
  const done = [`${several(erased, "entry", "entries")} erased`]
  if (keys > 0) done.push(`${several(keys, "key")} removed`)
  if (quarantined > 0) done.push(`${several(quarantined, "entry", "entries")} in quarantine removed`)
  if (unknown.length > 0) done.push(`the store does not know ${several(unknown.length, "id")}`)
  return `${done.join("; ")}.`
}

const WHAT = { key: "All entries of a primary key", ids: "Entries by id", store: "The whole store" }

const asked = { key: ({ key }) => ({ primaryKey: key }), ids: ({ ids }) => ({ ids: ids.split(/[\s,]+/).filter(Boolean) }), store: () => ({ whole: true }) }

// `first`: { primaryKey, id? } of the entry that is shown.
export const Erase = ({ store, first, onClose, again }) => {
  const [by, setBy] = useState(first?.id === undefined ? "key" : "ids")
  const [key, setKey] = useState(first?.primaryKey ?? "")
  const [ids, setIds] = useState(first?.id ?? "")
  const erase = async () => {
    say(told(await api.erase(store, asked[by]({ key, ids }))))
    again()
  }
  return html`
    <${Dialog} title="Erase entries for good?" act="Erase" type=${store} onDo=${erase} onClose=${onClose}>
      <p>Nobody can read event, primary key, payload and author of these entries any more. Nothing brings them back. The ids and sequences stay. Clients keep what they already have. The server's files lose the bytes within an hour. Older backups keep them: docs/DATA.md says for how long.</p>
      <div class="choice" role="group" aria-label="What to erase">
        ${Object.entries(WHAT).filter(([name]) => name !== "store" || first === undefined).map(([name, words]) => html`<button type="button" class="quiet" aria-pressed=${by === name} onClick=${() => setBy(name)}>${words}</button>`)}
      </div>
      ${by === "key" && html`
        <${Field} label="Primary key" hint="Only entries with exactly this primary key are erased. It may be empty." id="e-key">
          <input id="e-key" value=${key} spellcheck="false" autocomplete="off" aria-describedby="e-key-hint" onInput=${(event) => setKey(event.target.value)} />
        <//>`}
      ${by === "ids" && html`
        <${Field} label="Ids" hint="One on each line." id="e-ids">
          <textarea id="e-ids" rows="3" required spellcheck="false" aria-describedby="e-ids-hint" value=${ids} onInput=${(event) => setIds(event.target.value)}></textarea>
        <//>`}
      ${by === "store" && html`<p>All entries of the store are erased, and its public keys lose it: their clients are told, and can do nothing until they get a store again. The name stays. If the store is used again, it continues after its last sequence.</p>`}
    <//>
  `
}
