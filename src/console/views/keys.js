// Public keys: the store of each, and ways to change that.

import { html, useState } from "../vendor/preact-htm.js"
import { api } from "../api.js"
import { several, visible } from "../format.js"
import { Dialog, Empty, Failed, Field, Loaded, Name, Page, Search, StoreLink, Table, Time, say, useData, useSettled } from "../parts.js"

// More rows than a table can show.
const REVOKED_MOST = 5_000
const SHOWN = 200

export const Keys = ({ route: { query }, may }) => {
  const search = useSettled(query.q ?? "")
  const data = useData(() => api.keys(SHOWN, { search }), [search])
  const revoked = useData(() => api.revocations(REVOKED_MOST), [])
  const again = () => (data.again(), revoked.again())
  return html`
    <${Page} title="Keys" about="A public key names a client, or all devices of a person. It has one store: what it writes goes there, what it reads comes from there.">
      ${may("write") && html`<${Assign} again=${again} />`}
      <${Search} label="Find a key or a store" query=${query}>${data.value && found(data.value)}<//>
      <${Loaded} data=${data}>${({ items, more }) => {
        if (items.length > 0) return html`<${List} items=${items} revocations=${revoked.value?.items ?? []} may=${may} again=${again} />`
        if (search !== "") return html`<${Empty} title="Nothing matches"><p>${more ? "There are too many keys to look at all of them here, and none of the first contains this text. “eventlog-server keys list” prints all." : "No key, and no store of a key, contains this text."}</p><//>`
        return html`<${Empty} title="No key has a store yet"><p>Assign one above, in the configuration under <code>[[assign]]</code>, or with <code>eventlog-server keys assign</code>. With <code>--dev</code> each unknown key gets the store <code>default</code>.</p><//>`
      }}<//>
      <h2>Revoked</h2>
      <${Loaded} data=${revoked}>${({ items }) => html`<${Revocations} items=${items} may=${may} again=${again} />`}<//>
    <//>
  `
}

// The keys of one store.
export const KeysOf = ({ store, may }) => {
  const data = useData(() => api.keys(SHOWN, { storeId: store }), [store])
  const revoked = useData(() => api.revocations(REVOKED_MOST), [])
  const again = () => (data.again(), revoked.again())
  return html`
    ${may("write") && html`<${Assign} store=${store} again=${again} />`}
    <${Loaded} data=${data}>${({ items, more }) => {
      if (items.length === 0) return html`<${Empty} title="No key has this store"><p>${more ? "There are too many keys to look at all of them here, and none of the first has it." : "No client can read or write it. The server can."}</p><//>`
      return html`
        <p role="status">${found({ items, more })}</p>
        <${List} items=${items} revocations=${revoked.value?.items ?? []} may=${may} again=${again} />
      `
    }}<//>
  `
}

const found = ({ items, more }) => (more && items.length > 0 ? `the first ${several(items.length, "key")}; there are more, so search` : several(items.length, "key"))

const List = ({ items, revocations, may, again }) => {
  const [doing, setDoing] = useState()
  const isRevoked = (key) => revocations.some(({ publicKey }) => publicKey === key)
  const columns = [
    { name: "Key", show: ({ publicKey }) => html`<${Name} most=${48}>${publicKey}<//>${isRevoked(publicKey) && html` <span class="badge bad">revoked</span>`}` },
    { name: "Store", show: ({ storeId }) => html`<${StoreLink} store=${storeId} />` },
    ...(may("admin")
      ? [{
          name: "Do",
          show: ({ publicKey, storeId }) => html`
            <span class="actions">
              ${Object.entries(ACTIONS).map(([action, { name }]) => html`<button class="quiet" aria-label="${name} ${visible(publicKey)}" onClick=${() => setDoing({ action, publicKey, storeId })}>${name}</button>`)}
            </span>
          `
        }]
      : [])
  ]
  const Doing = doing && ACTIONS[doing.action].view
  return html`
    <${Table} caption="Keys" columns=${columns} rows=${items} id=${({ publicKey }) => publicKey} />
    ${doing && html`<${Doing} of=${doing} onClose=${() => setDoing()} again=${again} />`}
  `
}

const Assign = ({ store, again }) => {
  const [error, setError] = useState()
  const submit = async (event) => {
    event.preventDefault()
    const form = event.target
    const { key, storeId } = Object.fromEntries(new FormData(form))
    try {
      await api.assign(key, store ?? storeId)
      setError()
      form.reset()
      say("The key is assigned.")
      again()
    } catch (error) {
      setError(error)
    }
  }
  return html`
    <form class="filter" onSubmit=${submit}>
      <${Field} label="Public key" id="a-key"><input id="a-key" name="key" required spellcheck="false" autocomplete="off" /><//>
      ${store === undefined && html`<${Field} label="Store" id="a-store"><input id="a-store" name="storeId" required spellcheck="false" autocomplete="off" /><//>`}
      <div class="actions"><button>Assign</button></div>
    </form>
    ${error && html`<${Failed} error=${error} />`}
  `
}

const Move = ({ of: { publicKey, storeId }, onClose, again }) => {
  const [to, setTo] = useState("")
  const move = async () => {
    if (to === storeId) throw new Error("The key has this store already.")
    await api.move(publicKey, to)
    say("The key was moved.")
    again()
  }
  return html`
    <${Dialog} title="Move this key to another store?" act="Move" type=${publicKey} onDo=${move} onClose=${onClose}>
      <p>The key has the store <b><${Name}>${storeId}<//></b>. Its subscriptions end, and what it wrote stays there. Move it only when none of its clients still has data of that store. Such a client would write the data to the new store (docs/KEYS.md).</p>
      <${Field} label="New store" id="m-to"><input id="m-to" value=${to} required spellcheck="false" onInput=${(event) => setTo(event.target.value)} /><//>
    <//>
  `
}

const Remove = ({ of: { publicKey, storeId }, onClose, again }) => html`
  <${Dialog} title="Remove this key?" act="Remove" type=${publicKey} onClose=${onClose} onDo=${async () => {
    await api.remove(publicKey)
    say("The key has no store any more.")
    again()
  }}>
    <p>Its clients keep what they have. They send and receive nothing until the key is assigned to <b><${Name}>${storeId}<//></b> again. Nothing is deleted.</p>
  <//>
`

export const Revoke = ({ of: { publicKey }, onClose, again }) => {
  const [reason, setReason] = useState("")
  return html`
    <${Dialog} title="Revoke this key?" act="Revoke" onClose=${onClose} onDo=${async () => {
      await api.revoke({ publicKey, reason: reason || undefined })
      say("Revoked. Its connections end within a second.")
      again()
    }}>
      <p>The server refuses everybody who connects with <b><${Name}>${publicKey}<//></b> until you let the key in again. What they wrote stays.</p>
      <${Field} label="Reason, as the client sees it" id="r-why"><input id="r-why" value=${reason} onInput=${(event) => setReason(event.target.value)} /><//>
    <//>
  `
}

const Pin = ({ of: { publicKey }, onClose }) => {
  const data = useData(() => api.signingKey(publicKey).catch((error) => (error.reason === "no-signing-key" ? {} : Promise.reject(error))), [publicKey])
  const [key, setKey] = useState("")
  const now = data.value?.signingKey
  return html`
    <${Dialog} title="Pin a signing key?" act=${key === "" ? "Free it" : "Pin it"} onClose=${onClose} onDo=${async () => {
      await (key === "" ? api.unpin(publicKey) : api.pin(publicKey, key))
      say(key === "" ? "Freed. The next signing key that a client proves is bound." : "Pinned.")
    }}>
      <p>Clients of <code>/rpc</code> prove that the public key is theirs with a signing key. ${data.value && (now === undefined ? "None is bound to this one." : html`Bound now: <code>${now}</code>.`)}</p>
      ${data.error && html`<${Failed} error=${data.error} again=${data.again} />`}
      <${Field} label="Signing key, 64 hexadecimal digits" hint="Leave it empty to free the key, for a client that lost its identity." id="p-key">
        <input id="p-key" value=${key} pattern="[0-9a-fA-F]{64}" spellcheck="false" autocomplete="off" aria-describedby="p-key-hint" onInput=${(event) => setKey(event.target.value.trim())} />
      <//>
    <//>
  `
}

const ACTIONS = {
  move: { name: "Move", view: Move },
  pin: { name: "Pin", view: Pin },
  revoke: { name: "Revoke", view: Revoke },
  remove: { name: "Remove", view: Remove }
}

const whom = ({ publicKey, subject, tokenId }) => {
  if (publicKey !== undefined) return html`key <${Name}>${publicKey}<//>`
  return subject === undefined ? html`token <${Name}>${tokenId}<//>` : html`subject <${Name}>${subject}<//>`
}

const Revocations = ({ items, may, again }) => {
  const [error, setError] = useState()
  if (items.length === 0) return html`<p class="hint">Nobody is revoked.</p>`
  const lift = async (id) => {
    try {
      await api.lift(id)
      setError()
      say("Let in again.")
    } catch (error) {
      setError(error)
    }
    again()
  }
  const columns = [
    { name: "Who", show: whom },
    { name: "Until", show: ({ until }) => (until === undefined || until === null ? "lifted" : html`<${Time} at=${until * 1000} />`) },
    { name: "Why", show: ({ reason }) => (reason ? html`<${Name}>${reason}<//>` : "–") },
    ...(may("admin") ? [{ name: "Do", show: ({ id }) => html`<button class="quiet" aria-label="Let ${visible(id)} in again" onClick=${() => lift(id)}>Let in again</button>` }] : [])
  ]
  return html`
    ${error && html`<${Failed} error=${error} />`}
    <${Table} caption="Revocations" columns=${columns} rows=${items} id=${({ id }) => id} />
  `
}
