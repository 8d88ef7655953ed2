// The components that the views share.

import { html, useCallback, useEffect, useRef, useState } from "./vendor/preact-htm.js"
import { isAway, onState } from "./api.js"
import { ago, short, time, visible } from "./format.js"
import { ask, link } from "./route.js"

// The result of `load`, loaded again every `every` milliseconds while the page is visible. Meanwhile `value` stays; with
// `keeps` also while `load` is another one, so that a control in what is shown keeps the focus.
export const useData = (load, inputs, every, keeps = false) => {
  const [state, setState] = useState({})
  const current = useRef(0)
  const asked = useRef(0)
  const again = useCallback(async () => {
    const mine = ++current.current
    asked.current = mine
    try {
      const value = await load()
      if (mine === current.current) setState({ value })
    } catch (error) {
      if (mine === current.current) setState(({ value }) => ({ value, error }))
    }
    if (asked.current === mine) asked.current = 0
  }, inputs)
  const failed = useRef()
  failed.current = state.error
  // What failed while the server was gone is loaded again once it is back.
  useEffect(() => onState((now) => now === "here" && failed.current && isAway(failed.current) && ((failed.current = undefined), again())), [again])
  useEffect(() => {
    if (!keeps) setState({})
    again()
    // An answer that takes long is waited for.
    const look = () => document.hidden || asked.current !== 0 || again()
    const timer = every && setInterval(look, every)
    if (every) document.addEventListener("visibilitychange", look)
    return () => {
      // What is on its way is not shown any more.
      current.current++
      clearInterval(timer)
      document.removeEventListener("visibilitychange", look)
    }
  }, [again])
  return { ...state, again }
}

// A name that a client chose. Whatever it contains, the text around it stays as it is.
export const Name = ({ children, most = 80 }) => {
  const text = String(children)
  if (text === "") return html`<span class="faint">(empty)</span>`
  return html`<bdi title=${text.length > most ? visible(short(text, 400)) : undefined}>${visible(short(text, most))}</bdi>`
}

export const Time = ({ at }) => html`<time datetime=${iso(at)} title=${time(at)}>${ago(at)}</time>`

const iso = (at) => {
  const date = new Date(at)
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString()
}

export const StoreLink = ({ store }) => html`<a href=${link(["stores", store])}><${Name}>${store}<//></a>`

export const Page = ({ title, about, actions, children }) => html`
  <header class="page-head">
    <div>
      <h1 tabindex="-1">${title}</h1>
      ${about && html`<p class="about">${about}</p>`}
    </div>
    ${actions && html`<div class="actions">${actions}</div>`}
  </header>
  ${children}
`

// Why something cannot be shown, and what to do.
export const Failed = ({ error, again }) => {
  if (isAway(error) && again) return html`<p class="note warn" role="status">The server does not answer. Trying again.</p>`
  if (isAway(error)) return html`<p class="note warn" role="alert">The server did not answer. This may be done or not: look, and try again.</p>`
  return html`
    <div class="note bad" role="alert">
      <p>${error.message}</p>
      ${again && html`<button onClick=${again}>Try again</button>`}
    </div>
  `
}

// `alone`: there is no other heading on the page.
export const Empty = ({ title, alone, children }) => html`
  <div class="empty">
    ${alone ? html`<h1 tabindex="-1">${title}</h1>` : html`<h2>${title}</h2>`}
    ${children}
  </div>
`

export const NoView = () => html`
  <${Empty} title="There is no such view" alone>
    <p>The console has no view at this address. <a href=${link(["overview"])}>To the overview</a></p>
  <//>
`

// Moves the focus to the heading of a page, which may not be there yet. Returns how to give up.
export const focusHeading = (main) => {
  const focus = () => {
    const heading = main?.querySelector("h1")
    heading?.focus()
    return Boolean(heading)
  }
  if (!main || focus()) return
  const watch = new MutationObserver(() => {
    // Whoever has gone elsewhere meanwhile stays there.
    if ((document.activeElement !== document.body && document.activeElement !== main) || focus()) watch.disconnect()
  })
  watch.observe(main, { childList: true, subtree: true })
  return () => watch.disconnect()
}

export const Loading = () => html`<p class="loading" role="status">Loading…</p>`

// What was loaded, or the error.
export const Loaded = ({ data, children }) => {
  if (data.value !== undefined) return html`${data.error && html`<${Failed} error=${data.error} again=${data.again} />`}${children(data.value)}`
  return data.error ? html`<${Failed} error=${data.error} again=${data.again} />` : html`<${Loading} />`
}

export const Code = ({ children }) => {
  const [copied, setCopied] = useState(false)
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(children)
    } catch {
      return say("The browser does not allow copying.")
    }
    setCopied(true)
    setTimeout(() => setCopied(false), 1500)
  }
  return html`
    <div class="code">
      <pre tabindex="0">${children}</pre>
      ${navigator.clipboard && html`<button class="quiet" onClick=${copy}>${copied ? "Copied" : "Copy"}</button>`}
    </div>
  `
}

// What a list is searched for, in the address; beside it what was found.
export const Search = ({ label, query, children }) => html`
  <div class="tools">
    <label class="hidden" for="search">${label}</label>
    <input id="search" type="search" placeholder=${label} value=${query.q ?? ""} onInput=${(event) => ask({ q: event.target.value })} />
    <p role="status">${children}</p>
  </div>
`

// A list as a table. `columns`: { name, show, sort?, number? }; rows can be sorted by a column with `sort`.
export const Table = ({ caption, columns, rows, id, order, onOrder }) => html`
  <div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption class="hidden">${caption}</caption>
      <thead>
        <tr>
          ${columns.map((column) => html`<${Head} column=${column} order=${order} onOrder=${onOrder} />`)}
        </tr>
      </thead>
      <tbody>
        ${rows.map((row) => html`
          <tr key=${id(row)}>
            ${columns.map(({ name, show, number }) => html`<td class=${number ? "number" : ""} data-name=${name}>${show(row)}</td>`)}
          </tr>
        `)}
      </tbody>
    </table>
  </div>
`

const Head = ({ column: { name, sort, number }, order, onOrder }) => {
  const sorted = order?.by === name ? (order.down ? "descending" : "ascending") : undefined
  const change = () => onOrder({ by: name, down: sorted === undefined ? number === true : !order.down })
  return html`
    <th scope="col" class=${number ? "number" : ""} aria-sort=${sort ? (sorted ?? "none") : undefined}>
      ${sort ? html`<button class="sort" onClick=${change}>${name}<span aria-hidden="true">${sorted ? (order.down ? "↓" : "↑") : ""}</span></button>` : name}
    </th>
  `
}

export const sorted = (rows, columns, order) => {
  const sort = columns.find(({ name }) => name === order.by)?.sort
  if (!sort) return rows
  const value = (row) => sort(row)
  const compare = (one, other) => {
    const [a, b] = [value(one), value(other)]
    return typeof a === "string" ? (a < b ? -1 : a > b ? 1 : 0) : a - b
  }
  return rows.toSorted((one, other) => (order.down ? compare(other, one) : compare(one, other)))
}

export const Field = ({ label, hint, id, kind = "", children }) => html`
  <div class="field ${kind}">
    <label for=${id}>${label}</label>
    ${children}
    ${hint && html`<p class="hint" id="${id}-hint">${hint}</p>`}
  </div>
`

// Asks before something is done. `type`: what has to be typed to confirm it.
export const Dialog = ({ title, children, act, type, onDo, onClose }) => {
  const dialog = useRef()
  const [typed, setTyped] = useState("")
  const [state, setState] = useState({})
  const isDone = useRef(false)
  useEffect(() => {
    const [opener, main] = [document.activeElement, document.getElementById("main")]
    dialog.current.showModal()
    return () => {
      // What opened it may soon be gone, with what it was about.
      const back = () => (isDone.current || !opener?.isConnected ? focusHeading(main) : opener.focus())
      setTimeout(() => document.activeElement === document.body && back())
    }
  }, [])
  const submit = async (event) => {
    event.preventDefault()
    setState({ busy: true })
    try {
      await onDo()
      isDone.current = true
      onClose()
    } catch (error) {
      setState({ error })
    }
  }
  return html`
    <dialog ref=${dialog} onClose=${onClose} aria-labelledby="dialog-title">
      <form onSubmit=${submit}>
        <h2 id="dialog-title">${title}</h2>
        ${children}
        ${type && html`
          <${Field} label=${html`Type <b><${Name} most=${Infinity}>${type}<//></b> to confirm`} id="dialog-typed">
            <input id="dialog-typed" autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)} />
          <//>
        `}
        ${state.error && html`<${Failed} error=${state.error} />`}
        <div class="actions end">
          <button type="button" class="quiet" onClick=${onClose}>Cancel</button>
          <button class="danger" disabled=${state.busy || (type && typed !== type && typed !== visible(type))}>${act}</button>
        </div>
      </form>
    </dialog>
  `
}

let announce = () => {}
// Shows a short notice of what was done.
export const say = (text) => announce(text)

export const Said = () => {
  const [text, setText] = useState("")
  useEffect(() => {
    let timer
    announce = (said) => {
      setText(said)
      clearTimeout(timer)
      timer = setTimeout(() => setText(""), 4000)
    }
  }, [])
  return html`<div class="said ${text && "shown"}" role="status" aria-live="polite">${text}</div>`
}

export const Tabs = ({ tabs, now }) => html`
  <nav class="tabs" aria-label="Parts of this page">
    ${tabs.map(({ name, href }) => html`<a href=${href} aria-current=${name === now ? "page" : undefined}>${name}</a>`)}
  </nav>
`

export const Live = ({ on, held }) => html`<span class="live ${on && !held ? "on" : ""}">${on ? (held ? "on hold" : "live") : "not connected"}</span>`

// A text once it has not changed for a moment, so that not each letter is a request.
export const useSettled = (text) => {
  const [settled, setSettled] = useState(text)
  useEffect(() => {
    const timer = setTimeout(() => setSettled(text), 250)
    return () => clearTimeout(timer)
  }, [text])
  return settled
}
