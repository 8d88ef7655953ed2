// The console: the session, the address, and the view for it.

import { html, render, useEffect, useRef, useState } from "./vendor/preact-htm.js"
import { api, onState } from "./api.js"
import { Failed, Loading, NoView, Said, focusHeading, say } from "./parts.js"
import { decode, link, useRoute } from "./route.js"
import { Access } from "./views/access.js"
import { Groups } from "./views/groups.js"
import { Keys } from "./views/keys.js"
import { Overview } from "./views/overview.js"
import { Sessions } from "./views/sessions.js"
import { SignIn } from "./views/signin.js"
import { Store } from "./views/store.js"
import { Stores } from "./views/stores.js"
import { Write } from "./views/write.js"

const VIEWS = [
  { path: "overview", name: "Overview", view: Overview },
  { path: "stores", name: "Stores", view: ({ route, may }) => (route.path[1] ? html`<${Store} key=${route.path[1]} route=${route} may=${may} />` : html`<${Stores} route=${route} may=${may} />`), parts: true },
  { path: "keys", name: "Keys", view: Keys },
  { path: "sessions", name: "Sessions", view: Sessions },
  { path: "processing", name: "Processing", view: Groups },
  { path: "write", name: "Write", view: Write, right: "write" },
  { path: "access", name: "Access", view: Access }
]

// A token in the address, as `serve --dev` prints it, is used once and then removed from the address.
const TOKEN = /^#token=([^&]+)/
const isToken = () => TOKEN.test(location.hash)
const takeToken = () => {
  const token = location.hash.match(TOKEN)?.[1]
  if (token === undefined) return undefined
  history.replaceState(null, "", "#/overview")
  dispatchEvent(new HashChangeEvent("hashchange"))
  return decode(token)
}

// Without a cookie there is nothing to say: no token was given yet.
const begin = async () => {
  const token = takeToken()
  if (token !== undefined) return api.signIn(token)
  return api.session().catch((error) => Promise.reject(error.status === 401 ? { status: 401 } : error))
}

const App = () => {
  const [who, setWho] = useState({})
  const [away, setAway] = useState(false)
  const start = (first) => first.then((session) => setWho({ session }), (error) => setWho({ error }))
  useEffect(() => {
    const stop = onState((state) => {
      if (state === "signed-out") setWho((who) => ({ error: { status: 401 }, ended: who.session ? "by-server" : who.ended }))
      else if (state === "signed-out-elsewhere") setWho({ error: { status: 401 }, ended: "elsewhere" })
      else setAway(state === "away")
    })
    // An address with a token may be typed over another one, which loads nothing.
    const typed = () => isToken() && start(begin())
    addEventListener("hashchange", typed)
    start(begin())
    return () => {
      removeEventListener("hashchange", typed)
      stop()
    }
  }, [])
  useEffect(() => {
    if (!away) return
    const look = () => api.session().catch(({ status }) => status === 401 && setWho({ error: { status: 401 }, ended: "by-server" }))
    const timer = setInterval(() => document.hidden || look(), 1_000)
    return () => clearInterval(timer)
  }, [away])
  const { session, error, ended } = who
  if (session) return html`<${Signed} session=${session} away=${away} onOut=${() => setWho({ error: { status: 401 } })} />`
  if (error === undefined) return html`<${Loading} />`
  if (error.status === 0) {
    return html`<main class="lone"><${Failed} error=${error} /><button onClick=${() => start(begin())}>Try again</button></main>`
  }
  return html`<${SignIn} ended=${ended} key=${error.message ?? ended} error=${error.status === 401 && !error.message ? undefined : error} onIn=${(session) => setWho({ session })} />`
}

const Signed = ({ session, away, onOut }) => {
  const route = useRoute()
  const main = useRef()
  // A token for everything has each right.
  const may = (right) => session.rights.includes("admin") || session.rights.includes(right)
  const now = VIEWS.find(({ path, parts }) => path === (route.path[0] ?? "overview") && (parts || route.path.length < 2))
  const seen = useRef(false)
  useEffect(() => {
    document.title = `${now?.name ?? "Nothing here"} · Event log`
    // A screen reader says that the page has changed.
    if (seen.current) return focusHeading(main.current)
    seen.current = true
  }, [route.path.join("/")])
  // Whoever leaves this page has to know that the session did not end.
  const out = () => api.signOut().then(onOut, (error) => (error.status === 401 ? onOut() : say(`You are still signed in: ${error.message}`)))
  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}>Skip to the content</a>
    <header class="side">
      <a class="brand" href=${link(["overview"])}><${Mark} />Event log</a>
      <nav aria-label="Views">
        ${VIEWS.filter(({ right }) => !right || may(right)).map(({ path, name }) => html`
          <a href=${link([path])} aria-current=${now?.path === path ? "page" : undefined}><${Icon} of=${path} />${name}</a>
        `)}
      </nav>
      <div class="me">
        <p><b>${session.name}</b><span>${may("admin") ? "may do everything" : session.rights.map((right) => `${right}s`).join(" and ")}</span></p>
        <button class="quiet" onClick=${out}>Sign out</button>
      </div>
    </header>
    <main id="main" ref=${main} tabindex="-1">
      ${away && html`<p class="note warn" role="alert">The server does not answer. Trying again.</p>`}
      ${now ? html`<${now.view} route=${route} may=${may} session=${session} />` : html`<${NoView} />`}
    </main>
    <${Said} />
  `
}

const Mark = () => html`<svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true"><rect width="32" height="32" rx="8" /><path d="M8 10h16M8 16h11M8 22h14" /></svg>`

const SHAPES = {
  overview: "M3 13h4l3-8 4 14 3-6h4",
  stores: "M4 6c0-4 16-4 16 0v12c0 4-16 4-16 0zM4 6c0 4 16 4 16 0M4 12c0 4 16 4 16 0",
  keys: "M14 10a4 4 0 1 0-4 4l0 0M13 13l7 7M17 17l2-2",
  sessions: "M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM3 19c0-6 10-6 10 0M16 5v14M20 8v8",
  processing: "M5 6h6v5H5zM13 13h6v5h-6zM8 11v4.5h5",
  write: "M5 19h4L19 9l-4-4L5 15z",
  access: "M12 3l7 3v5c0 5-3 8-7 10-4-2-7-5-7-10V6z"
}

const Icon = ({ of }) => html`<svg class="icon" viewBox="0 0 24 24" width="20" height="20" aria-hidden="true"><path d=${SHAPES[of]} /></svg>`

render(html`<${App} />`, document.getElementById("app"))
