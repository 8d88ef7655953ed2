// Writes an event as the server, and shows it when it arrives in the feed.

import { html, useEffect, useState } from "../vendor/preact-htm.js"
import { api } from "../api.js"
import { bytes, bytesToBase64, count, short } from "../format.js"
import { encode } from "../msgpack.js"
import { Empty, Failed, Field, Loaded, Name, Page, say, useData } from "../parts.js"
import { link } from "../route.js"
import { Entries } from "./feed.js"

const EXAMPLE = '{\n  "text": "hi"\n}'

const HINTS = {
  msgpack: (payload) => `${bytes(payload.length)} of msgpack with named fields, as clients of /eventlog write it`,
  SchemaBinary: () => "as clients of /rpc write it, for a schema of the same shape: docs/PROTOCOL-RPC.md"
}

const NUMBER = /-?\d+(\.\d+)?([eE][+-]?\d+)?/g

// The numbers of a JSON text that JavaScript cannot keep as they are typed: too large, or whole and above 2^53.
const notKept = (text) =>
  (text.replace(/"(?:[^"\\]|\\.)*"/g, '""').match(NUMBER) ?? []).filter((typed) => {
    const number = Number(typed)
    return !Number.isFinite(number) || (Math.abs(number) > Number.MAX_SAFE_INTEGER && /^-?\d+$/.test(typed) && BigInt(typed) !== BigInt(number))
  })

const parsed = (text) => {
  let value
  try {
    value = JSON.parse(text)
  } catch (error) {
    return { error: `This is not JSON: ${error.message}` }
  }
  const [number] = notKept(text)
  if (number !== undefined) return { error: `A browser cannot keep the number ${short(number, 40)} as it is: write it as text, or with eventlog-server write.` }
  try {
    return { value, payload: encode(value) }
  } catch (error) {
    return { error: error instanceof RangeError ? "This is nested too deeply." : error.message }
  }
}

export const Write = (given) =>
  given.may("write")
    ? html`<${Form} query=${given.route.query} />`
    : html`<${Empty} title="This token may not write" alone><p>Writing needs the right <code>write</code>.</p><//>`

const Form = ({ query }) => {
  const [text, setText] = useState(EXAMPLE)
  const [state, setState] = useState({})
  const [codec, setCodec] = useState("msgpack")
  const [fields, setFields] = useState({ store: "", name: "", key: "", handlers: true })
  const set = (more) => setFields((fields) => ({ ...fields, ...more }))
  useEffect(() => query.store !== undefined && set({ store: query.store }), [query.store])
  const typed = (name) => (event) => set({ [name]: event.target.value })
  const { store, name, key, handlers } = fields
  const { value, payload, error } = parsed(text)
  const submit = async (event) => {
    event.preventDefault()
    setState({ busy: true })
    try {
      const encoded = codec === "msgpack" ? bytesToBase64(payload) : (await api.schemaBinary(value)).payload
      const entry = { event: name, primaryKey: key, payload: encoded }
      const { sequenceNumbers } = await api.write(store, [entry], handlers)
      setState({ written: { store, sequence: sequenceNumbers[0] } })
      say("Written to disk.")
    } catch (error) {
      setState({ error })
    }
  }
  return html`
    <${Page} title="Write" about="Writes an event as the server. Every client of the store gets it.">
      <form class="card write" onSubmit=${submit}>
        <div class="columns">
          <${Field} label="Store" id="w-store"><input id="w-store" required value=${store} onInput=${typed("store")} spellcheck="false" autocomplete="off" /><//>
          <${Field} label="Event" id="w-event"><input id="w-event" required value=${name} onInput=${typed("name")} placeholder="Note" spellcheck="false" autocomplete="off" /><//>
          <${Field} label="Primary key" id="w-key"><input id="w-key" value=${key} onInput=${typed("key")} placeholder="n1" spellcheck="false" autocomplete="off" /><//>
        </div>
        <${Field} label="Payload, as JSON" id="w-payload" hint=${error ?? HINTS[codec](payload)}>
          <textarea id="w-payload" rows="8" spellcheck="false" aria-invalid=${Boolean(error)} aria-describedby="w-payload-hint" value=${text} onInput=${(event) => setText(event.target.value)}></textarea>
        <//>
        <div class="choice" role="group" aria-label="Encoded as">
          ${Object.keys(HINTS).map((name) => html`<button type="button" class="quiet" aria-pressed=${name === codec} onClick=${() => setCodec(name)}>${name}</button>`)}
        </div>
        <label class="check"><input type="checkbox" checked=${handlers} onChange=${(event) => set({ handlers: event.target.checked })} /> Run handlers on it</label>
        ${state.error && html`<${Failed} error=${state.error} />`}
        <div class="actions"><button class="main" disabled=${Boolean(error) || state.busy}>Write</button></div>
      </form>
      ${state.written && html`<${Written} ...${state.written} />`}
    <//>
  `
}

// Read from the feed, as clients get it.
const Written = ({ store, sequence }) => {
  const data = useData(() => api.entries(store, { from: sequence, limit: 1 }), [store, sequence])
  return html`
    <h2>It is in the feed of <${Name}>${store}<//></h2>
    <${Loaded} data=${data}>${({ entries }) => html`<${Entries} store=${store} entries=${entries} />`}<//>
    <p><a href=${link(["stores", store, "entry", sequence])}>Entry ${count(sequence)}</a> · <a href=${link(["stores", store])}>the live feed</a></p>
  `
}
