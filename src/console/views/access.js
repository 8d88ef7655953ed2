// Who may use the admin API and this console.

import { html, useState } from "../vendor/preact-htm.js"
import { api } from "../api.js"
import { several } from "../format.js"
import { Code, Failed, Loaded, Name, Page, Table, say, useData } from "../parts.js"

const RIGHTS = {
  read: "sees everything that is stored, and who is connected",
  write: "writes entries as the server, and assigns keys to stores",
  admin: "does everything"
}

const COLUMNS = [
  { name: "Name", show: ({ name }) => html`<${Name}>${name}<//>` },
  { name: "Rights", show: ({ rights }) => rights.map((right) => html`<span class="badge ${right === "admin" ? "warn" : ""}" title=${RIGHTS[right]}>${right}</span> `) },
  { name: "Signed in here", number: true, show: ({ consoleSessions }) => (consoleSessions === 0 ? "nobody" : several(consoleSessions, "browser")) }
]

export const Access = ({ may, session }) => {
  const data = useData(api.tokens, [])
  return html`
    <${Page} title="Access" about="The tokens of the admin API. The server keeps only their hashes, so nothing can show them.">
      <${Loaded} data=${data}>${({ tokens }) => html`<${Table} caption="Tokens" columns=${COLUMNS} rows=${tokens} id=${(token) => tokens.indexOf(token)} />`}<//>
      <dl class="facts">
        ${Object.entries(RIGHTS).map(([right, what]) => html`<div><dt>${right}</dt><dd>${what}</dd></div>`)}
      </dl>
      <h2>Add or remove a token</h2>
      <p>Tokens are in the configuration. To replace one, list both for a while. Removing a token signs out everybody who signed in with it.</p>
      <${Code}>${'[[admin.tokens]]\nname = "on-call"\nrights = ["read"]\ntoken = ["new", "old"]     # or token_file, or "sha256:…"'}<//>
      ${may("admin") && html`<${Reload} again=${data.again} />`}
      <p class="hint">You are signed in as <b><${Name}>${session.name}<//></b>. A session ends after twelve hours without use, after a week, and when the server restarts.</p>
    <//>
  `
}

const Reload = ({ again }) => {
  const [state, setState] = useState({})
  const reload = async () => {
    try {
      setState({ done: await api.reload() })
      say("The configuration is reloaded.")
      again()
    } catch (error) {
      setState({ error })
    }
  }
  const names = (list) => (list.length === 0 ? "nothing" : list.join(", "))
  return html`
    <div class="tools"><button onClick=${reload}>Reload the configuration</button></div>
    ${state.error && html`<${Failed} error=${state.error} />`}
    ${state.done && html`<p class="note">Applied: ${names(state.done.applied)}. Needs a restart: ${names(state.done.needsRestart)}.</p>`}
  `
}
