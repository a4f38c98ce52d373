// The tab: a list of runs at the left, and the page of those that are chosen in a frame.

const CHOSEN = "gradwatch.runs" // in the browser's storage
const FIRST = 2, MOST = 8 // runs that are chosen at first, and at all

const style = `
  :root { --page: #fff; --ink: #1c1c1c; --line: #d5d5d5; }
  :root[data-theme="dark"] { --page: #1e1f22; --ink: #e8e8e8; --line: #45474d; color-scheme: dark; }
  html, body { margin: 0; height: 100%; overflow: hidden; }
  body { display: flex; background: var(--page); color: var(--ink); font: 13px Roboto, system-ui, sans-serif; }
  nav { flex: none; width: 190px; padding: 12px; overflow: auto; border-right: 1px solid var(--line); box-sizing: border-box; }
  nav b { display: block; margin-bottom: 8px; }
  nav input[type=text] { width: 100%; box-sizing: border-box; margin-bottom: 8px; font: inherit; }
  nav label { display: block; margin: 4px 0; overflow-wrap: anywhere; }
  main { flex: 1; position: relative; }
  main p { padding: 0 16px; }
  iframe { position: absolute; width: 100%; height: 100%; border: 0; }
  @media (max-width: 900px) { nav { width: 130px; padding: 8px; } }
`

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

// What TensorBoard's own window says: its theme, and when it has reloaded.
function theme() {
  return window.parent.document.body.classList.contains("dark-mode") ? "dark" : "light"
}

function on_reload(act) {
  const {port1, port2} = new MessageChannel()
  port1.onmessage = ({data}) => {
    const message = JSON.parse(data)
    if (message.isReply) return
    port1.postMessage(JSON.stringify({...message, payload: null, error: null, isReply: true}))
    if (message.type == "experimental.DataReloaded") act()
  }
  window.parent.postMessage("experimental.bootstrap", "*", [port2])
}

export function render() {
  const list = make("div"), filter = make("input", {type: "text", placeholder: "filter runs"})
  const nav = make("nav", {}, make("b", {textContent: "Runs"}), filter, list)
  const main = make("main"), notice = make("p")
  main.append(notice)
  document.head.append(make("style", {textContent: style}))
  document.body.append(nav, main)

  let runs = [], chosen = null, frame = null, shown = null, problem = null

  function list_runs() {
    const words = filter.value.toLowerCase()
    const items = runs.filter(({name}) => name.toLowerCase().includes(words)).map(({name}) => {
      const box = make("input", {type: "checkbox", checked: chosen.has(name), value: name})
      box.onchange = () => {
        if (box.checked) chosen.add(name)
        else chosen.delete(name)
        localStorage.setItem(CHOSEN, JSON.stringify([...chosen]))
        show()
      }
      return make("label", {}, box, " " + name.replace(/\/gradwatch$/, ""))
    })
    list.replaceChildren(...items)
  }

  function say(words) {
    notice.textContent = words
    frame?.remove()
    frame = shown = null
  }

  // A new page takes the place of the old one once it is drawn, and goes on with its view.
  function show() {
    const wanted = runs.filter(({name}) => chosen.has(name)).slice(0, MOST)
    if (problem) return say(problem)
    if (!runs.length) return say("No run in this log directory has recorded gradients.")
    if (!wanted.length) return say("Choose a run on the left.")
    const key = JSON.stringify(wanted)
    if (key == shown) return
    const state = {theme: theme(), ...frame?.contentWindow.gradwatch?.state()}
    state.theme = theme()
    if (shown && !same_runs(shown, key)) delete state.view
    shown = key
    const query = new URLSearchParams(wanted.map(({name}) => ["run", name]))
    const next = make("iframe", {title: "gradients"})
    next.style.visibility = "hidden"
    next.onload = () => {
      if (shown != key) return next.remove()
      next.style.visibility = "visible"
      frame?.remove()
      frame = next
      notice.textContent = ""
    }
    next.src = `page?${query}#${encodeURIComponent(JSON.stringify(state))}`
    main.append(next)
  }

  const same_runs = (one, other) => {
    const names = (key) => JSON.stringify(JSON.parse(key).map(({name}) => name))
    return names(one) == names(other)
  }

  async function refresh() {
    try {
      const answer = await (await fetch("runs")).json()
      runs = answer.runs
      problem = answer.problem
    } catch (error) {
      return // the server is gone: what is shown stays
    }
    const names = runs.map(({name}) => name)
    if (chosen === null) {
      const before = JSON.parse(localStorage.getItem(CHOSEN) ?? "[]")
      chosen = new Set(before.filter((name) => names.includes(name)))
      if (!chosen.size) chosen = new Set(names.slice(0, FIRST))
    }
    list_runs()
    show()
  }

  function paint() {
    document.documentElement.dataset.theme = theme()
    frame?.contentWindow.gradwatch?.theme(theme())
  }

  filter.oninput = list_runs
  new MutationObserver(paint).observe(window.parent.document.body, {attributeFilter: ["class"]})
  paint()
  refresh()
  on_reload(refresh)
}
