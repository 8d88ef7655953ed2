// Who may use the admin API and this console.

import { html, useState } from "../vendor/preact-htm.js"
import { api } from "../api.js"
import { several } from "../format.js"
import { Code, Failed, Loaded, Name, Page, Table, say, useData } from "../parts.js"

const RIGHTS = {
  read: "looks at everything that is stored, and at who is there",
  write: "writes entries as the server, and assigns keys to stores",
  admin: "may do everything"
}

const COLUMNS = [
  { name: "Name", show: ({ name }) => html`<${Name}>${name}<//>` },
  { name: "Rights", show: ({ rights }) => rights.map((right) => html`<span class="badge ${right === "admin" ? "warn" : ""}" title=${RIGHTS[right]}>${right}</span> `) },
  { name: "Signed in here", number: true, show: ({ consoleSessions }) => (consoleSessions === 0 ? "nobody" : several(consoleSessions, "browser")) }
]

export const Access = ({ may, session }) => {
  const data = useData(api.tokens, [])
  return html`
    <${Page} title="Access" about="The tokens of the admin API. Nothing shows what they are: the server keeps their hashes.">
      <${Loaded} data=${data}>${({ tokens }) => html`<${Table} caption="Tokens" columns=${COLUMNS} rows=${tokens} id=${(token) => tokens.indexOf(token)} />`}<//>
      <dl class="facts">
        ${Object.entries(RIGHTS).map(([right, what]) => html`<div><dt>${right}</dt><dd>${what}</dd></div>`)}
      </dl>
      <h2>Another token, or one less</h2>
      <p>Tokens stand in the configuration. To take the place of one, let both count for a while; who is signed in with one that goes is signed out at once.</p>
      <${Code}>${'[[admin.tokens]]\nname = "on-call"\nrights = ["read"]\ntoken = ["new", "old"]     # or token_file, or "sha256:…"'}<//>
      ${may("admin") && html`<${Reload} again=${data.again} />`}
      <p class="hint">You are signed in as <b><${Name}>${session.name}<//></b>. A session ends when nobody looks for twelve hours, after a week, and when the server starts again.</p>
    <//>
  `
}

const Reload = ({ again }) => {
  const [state, setState] = useState({})
  const reload = async () => {
    try {
      setState({ done: await api.reload() })
      say("The configuration was read again.")
      again()
    } catch (error) {
      setState({ error })
    }
  }
  const names = (list) => (list.length === 0 ? "nothing" : list.join(", "))
  return html`
    <div class="tools"><button onClick=${reload}>Read the configuration again</button></div>
    ${state.error && html`<${Failed} error=${state.error} />`}
    ${state.done && html`<p class="note">Changed and counts: ${names(state.done.applied)}. Counts after a restart: ${names(state.done.needsRestart)}.</p>`}
  `
}
