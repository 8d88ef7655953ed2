// Asks for a token of the admin API.

import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js"
import { api } from "../api.js"
import { Code, Field } from "../parts.js"

export const SignIn = ({ ended, error, onIn }) => {
  const [state, setState] = useState({ error })
  const field = useRef()
  useEffect(() => field.current.focus(), [])
  const submit = async (event) => {
    event.preventDefault()
    setState({ busy: true })
    try {
      onIn(await api.signIn(field.current.value))
    } catch (error) {
      setState({ error })
      field.current.select()
    }
  }
  return html`
    <main class="lone">
      <form class="card" onSubmit=${submit}>
        <h1>Event log console</h1>
        ${ended && !state.error && html`<p class="note">${ENDED[ended]}</p>`}
        <${Field} label="Admin token" id="token">
          <input id="token" ref=${field} type="password" autocomplete="current-password" required spellcheck="false" aria-describedby="why" />
        <//>
        <div id="why" role="alert">${state.error && html`<p class="note bad">${why(state.error)}</p>`}</div>
        <button class="main" disabled=${state.busy}>Sign in</button>
      </form>
      <details>
        <summary>Where do I find a token?</summary>
        <p>It is in the server's configuration, or in its secrets:</p>
        <${Code}>${'[admin]\ntoken = "…"\n\n[[admin.tokens]]      # read-only\nname = "on-call"\nrights = ["read"]\ntoken = "…"'}<//>
        <p><code>serve --dev</code> makes a new one at each start. The address that it prints contains it.</p>
      </details>
    </main>
  `
}

const ENDED = {
  "by-server": "The session has ended. That happens after twelve hours without use, after a week, when the server restarts, and when its token is removed.",
  elsewhere: "You signed out in another tab."
}

const why = (error) => {
  if (error.reason === "wrong-token") return "The server does not have this token."
  if (error.reason === "guessing") return `Too many wrong tokens came from your address. Try again in ${error.retryAfter ?? "some"} s.`
  return error.message
}
