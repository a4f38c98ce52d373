// Runs once, when Bokeh has made the charts. `runs`, `x_range`, `palettes`, `colors` and
// `color_ranges` are what page.py hands over. All text goes into the page as text.
const $ = (id) => document.getElementById("gw-" + id)
const given = JSON.parse(decodeURIComponent(location.hash.slice(1) || "null")) || {}
const state = {measure: "norm", ranges: {}, open: null, layer: null, ...given}
const full = [x_range.start, x_range.end]
if (given.theme) document.documentElement.dataset.theme = given.theme

const number = (v) => {
  if (Number.isNaN(v)) return "not measured"
  if (!Number.isFinite(v)) return "not finite"
  const rounded = Number(v.toPrecision(3)), size = Math.abs(v)
  return v && (size >= 1e5 || size < 1e-3) ? rounded.toExponential() : String(rounded)
}

// The last index whose value is <= x, or -1.
function at(values, x) {
  let low = -1, high = values.length
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (values[middle] <= x) low = middle
    else high = middle
  }
  return low
}

// The table that a measure is read from, and what its values are divided by.
const table = (run) => run.measures[state.measure == "median_ratio" ? "norm" : state.measure]
const divisor = (run, v) => (state.measure == "median_ratio" ? run.medians[v] : 1)

// ---- rows: variables, or blocks of them -------------------------------------------

function set_rows(run) {
  run.rows = []
  for (const [name, first, end] of run.blocks) {
    const many = end - first > 1
    if (many && !state.open.includes(name)) {
      run.rows.push({label: `▸ ${name} (${end - first})`, block: name, first, end})
      continue
    }
    for (let v = first; v < end; v++) {
      const head = many && run.grouped ? (v == first ? "▾ " : "   ") : ""
      const block = many && run.grouped ? name : null
      run.rows.push({label: head + short(run.labels[v]), block, first: v, end: v + 1})
    }
  }
}

// Bokeh would take what is between double dollar signs for a formula.
function short(name) {
  const text = name.replaceAll("$$", "$\u200b$")
  return text.length > characters ? "…" + text.slice(1 - characters) : text
}

function row_of(run, v) {
  return run.rows.findIndex((row) => row.first <= v && v < row.end)
}

function label_rows(run) {
  const {axis, ticker, figure} = run.heatmap
  const range = figure.y_range
  const shown = Math.abs(range.start - range.end)
  const every = Math.max(1, Math.ceil((12 * shown) / (figure.inner_height || 300)))
  const ticks = [], names = new Map()
  run.rows.forEach((row, r) => {
    if (r % every) return
    ticks.push(r + 0.5)
    names.set(r + 0.5, row.label)
  })
  axis.major_label_overrides = names
  ticker.ticks = ticks
}

// ---- heatmap ------------------------------------------------------------------------

function packed(hex) {
  const rgb = parseInt(hex.slice(1, 7), 16)
  return (0xff000000 | ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0
}
const ZERO = packed(colors.zero), NOT_FINITE = packed(colors.not_finite)
const packed_palettes = {}
for (const name in palettes) packed_palettes[name] = palettes[name].map(packed)

const palette_name = () => (state.measure == "median_ratio" ? "diverging" : "sequential")
const color_range = () => state.ranges[state.measure] ?? color_ranges[state.measure]
const is_fraction = () => state.measure == "zero_fraction"

const pixels = (run) => Math.max(1, Math.min(2000, Math.round(run.heatmap.figure.inner_width || 900)))

// Columns [from, to) of a table that pixel `p` of `width` covers; none: [0, 0).
function covered({first, last}, p, width) {
  const step = (x_range.end - x_range.start) / width
  const left = x_range.start + p * step, right = left + step, count = first.length
  if (!count || right <= first[0] - 0.5 || left >= last[count - 1] + 0.5) return [0, 0]
  const from = Math.max(0, at(first, left + 0.5))
  return [from, Math.max(from, at(first, right + 0.5 - 1e-9)) + 1]
}

function draw(run) {
  const width = pixels(run), columns = table(run)
  const count = columns.first.length, values = columns.values
  const spans = Array.from({length: width}, (_, p) => covered(columns, p, width))
  const from = Int32Array.from(spans, (span) => span[0])
  const to = Int32Array.from(spans, (span) => span[1])
  const palette = packed_palettes[palette_name()]
  const [low, high] = color_range(), scale = 255.99 / (high - low), fraction = is_fraction()
  const height = Math.max(1, run.rows.length)
  const image = new Uint32Array(width * height), largest = new Float32Array(width)
  run.rows.forEach((row, r) => {
    largest.fill(NaN)
    for (let v = row.first; v < row.end; v++) {
      const by = divisor(run, v), offset = v * count
      for (let p = 0; p < width; p++)
        for (let j = from[p]; j < to[p]; j++) {
          const value = values[offset + j] / by
          if (!(value <= largest[p]) && value == value) largest[p] = value
        }
    }
    for (let p = 0; p < width; p++) {
      const value = largest[p]
      if (value != value) continue // transparent: not measured
      let color
      if (value == Infinity) color = NOT_FINITE
      else if (!fraction && value <= 0) color = ZERO
      else {
        const place = ((fraction ? value : Math.log10(value)) - low) * scale
        color = palette[place < 0 ? 0 : place > 255 ? 255 : place | 0]
      }
      image[r * width + p] = color
    }
  })
  const {cells} = run.heatmap, Image = cells.data.image[0].constructor
  cells.data = {
    image: [new Image(image, [height, width])],
    x: [x_range.start], y: [0], dw: [x_range.end - x_range.start], dh: [height],
  }
}

function mark(run) {
  const seen = new Set(), data = {x: [], y: [], color: []}
  for (const event of run.events) {
    if (event.variable === null) continue
    const r = row_of(run, event.variable), key = event.step + ":" + r
    if (seen.has(key)) continue
    seen.add(key)
    data.x.push(event.step)
    data.y.push(r + 0.5)
    data.color.push(run.heatmap.actions[event.action] ?? "#8a8a8a")
  }
  run.heatmap.marks.data = data
  const v = run.variables.indexOf(state.layer), r = row_of(run, v)
  run.heatmap.chosen.data = v < 0 ? {y: [], height: []} : {y: [r, r + 1], height: [1, 1]}
}

function show_scale() {
  const [low, high] = color_range(), fraction = is_fraction()
  $("low").value = number(fraction ? low : 10 ** low)
  $("high").value = number(fraction ? high : 10 ** high)
  const palette = palettes[palette_name()], stops = []
  for (let i = 0; i < 256; i += 15) stops.push(palette[i])
  $("ramp").style.background = `linear-gradient(to right, ${stops.join(",")})`
}

function set_scale() {
  const ends = [$("low"), $("high")].map((e) => Number(e.value))
  const range = is_fraction() ? ends : ends.map(Math.log10)
  if (range.every(Number.isFinite) && range[1] > range[0]) state.ranges[state.measure] = range
  show_scale()
  draw_all()
}

let waiting = 0
function draw_all() {
  if (waiting) return
  waiting = requestAnimationFrame(() => {
    waiting = 0
    runs.forEach(draw)
  })
}

function rebuild() {
  for (const run of runs) {
    set_rows(run)
    const range = run.heatmap.figure.y_range
    range.start = Math.max(1, run.rows.length)
    range.end = 0
    label_rows(run)
    mark(run)
  }
  draw_all()
}

// ---- what the pointer is on ---------------------------------------------------------

function reading(run, name, v, x) {
  const {first, last, values} = run.measures[name]
  const j = at(first, x + 0.5)
  if (j < 0) return null
  const steps = last[j] > first[j] ? `steps ${first[j]} to ${last[j]}` : `step ${first[j]}`
  return {value: values[v * first.length + j], steps}
}

function events_near(run, x, fits) {
  const reach = (x_range.end - x_range.start) / 150 + 0.5
  const found = run.events.filter((e) => Math.abs(e.step - x) <= reach && fits(e))
  const lines = found.slice(0, 4).map((e) => "● " + e.message)
  return found.length > 4 ? [...lines, `and ${found.length - 4} more events`] : lines
}

// The largest value under the pointer, as it is drawn: `[variable, column]`, or null.
function largest_at(run, row, x) {
  const columns = table(run), count = columns.first.length, width = pixels(run)
  const pixel = Math.floor(((x - x_range.start) / (x_range.end - x_range.start)) * width)
  const [from, to] = covered(columns, pixel, width)
  let found = null, largest = NaN
  for (let v = row.first; v < row.end; v++)
    for (let j = from; j < to; j++) {
      const value = columns.values[v * count + j] / divisor(run, v)
      if (found && !(value > largest) && largest == largest) continue
      found = [v, j]
      largest = value
    }
  return found
}

function on_heatmap(run, x, y) {
  const row = run.rows[Math.floor(y)], found = row && largest_at(run, row, x)
  if (!found) return null
  const [v, column] = found, step = table(run).first[column]
  const norm = reading(run, "norm", v, step)
  const lines = [run.labels[v]]
  if (row.end > row.first + 1) lines[0] += ` (largest of ${row.block})`
  if (norm) {
    lines.push(`${norm.steps}: norm ${number(norm.value)}`)
    const ratio = norm.value / run.medians[v]
    if (Number.isFinite(ratio)) lines.push(`${number(ratio)} × the median of the layer`)
  }
  for (const [name, words] of [["update_ratio", "update / weights"], ["zero_fraction", "fraction of zeros"]]) {
    const other = reading(run, name, v, step)
    if (other && !Number.isNaN(other.value)) lines.push(`${words} ${number(other.value)} (${other.steps})`)
  }
  const fits = (e) => e.variable === null || (row.first <= e.variable && e.variable < row.end)
  return [...lines, ...events_near(run, x, fits)]
}

function on_timeline(run, x) {
  const {step} = run.curves, last = run.measures.norm.last
  const j = at(step, x + 0.5)
  if (j < 0 || x > last[last.length - 1] + 0.5) return events_near(run, x, () => true)
  const lines = [last[j] > step[j] ? `steps ${step[j]} to ${last[j]}: largest` : `step ${step[j]}`]
  const put = (words, name) => {
    const value = run.curves[name][j]
    if (!Number.isNaN(value)) lines.push(`${words} ${number(value)}`)
  }
  put("loss", "loss")
  put("limit of the loss", "limit_loss")
  put("norm before clipping", "global_norm")
  put("norm after clipping", "clipped_norm")
  put("limit of the norm", "limit_global_norm")
  put("learning rate", "learning_rate")
  return [...lines, ...events_near(run, x, () => true)]
}

const pointer = {x: 0, y: 0}
document.addEventListener("pointermove", (e) => {
  pointer.x = e.clientX
  pointer.y = e.clientY
}, true)

function tell(lines) {
  const tip = $("tip")
  tip.hidden = !lines || !lines.length
  if (tip.hidden) return
  tip.textContent = lines.join("\n")
  const {width, height} = tip.getBoundingClientRect()
  const right = pointer.x + 18 + width > innerWidth
  tip.style.left = `${Math.max(4, right ? pointer.x - width - 14 : pointer.x + 18)}px`
  tip.style.top = `${Math.max(4, Math.min(pointer.y + 14, innerHeight - height - 4))}px`
}

const inside = (x) => x >= x_range.start && x <= x_range.end
function listen(figure, lines) {
  figure.on_event("mousemove", (e) => tell(inside(e.x) ? lines(e.x, e.y) : null))
  figure.on_event("mouseleave", () => tell(null))
  figure.on_event("doubletap", () => {
    x_range.setv({start: full[0], end: full[1]})
    for (const run of runs) run.heatmap.figure.y_range.setv({start: Math.max(1, run.rows.length), end: 0})
  })
}

// ---- one layer -----------------------------------------------------------------------

// The range of a log axis that has all points of some statistics in it.
function fit_range(range, statistics) {
  let low = Infinity, high = 0
  for (const run of runs)
    for (const name of statistics)
      for (const y of run.sources[name].data.y)
        if (y > 0) {
          low = Math.min(low, y)
          high = Math.max(high, y)
        }
  if (high) range.setv({start: low / 2, end: high * 3})
}

const HISTOGRAM = 32, BINS = HISTOGRAM - 2

// The bins of a variable's histograms as rectangles; returns the ends of each histogram.
function show_histograms(run, v) {
  const data = {left: [], right: [], bottom: [], top: [], a: []}, ends = []
  const {steps, values} = run.histograms ?? {steps: []}
  for (let s = 0; v >= 0 && s < steps.length; s++) {
    const begin = (v * steps.length + s) * HISTOGRAM
    const counts = Array.from({length: BINS}, (_, b) => values[begin + b])
    const most = Math.max(...counts)
    const low = values[begin + BINS], width = (values[begin + BINS + 1] - low) / BINS
    if (!(most > 0)) continue
    ends.push([low, low + BINS * width])
    const right = steps[s + 1] ?? steps[s] + (steps[s] - (steps[s - 1] ?? steps[s] - 1))
    for (let b = 0; b < BINS; b++) {
      if (!counts[b]) continue
      data.left.push(steps[s])
      data.right.push(right)
      data.bottom.push(low + b * width)
      data.top.push(low + (b + 1) * width)
      data.a.push(0.15 + 0.85 * Math.sqrt(counts[b] / most))
    }
  }
  run.bins.data = data
  return ends
}

// A range that an explosion cannot blow out: four times that of the middle histogram.
function fit_histograms(ends) {
  if (!ends.length) return
  const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1]
  const reach = 4 * Math.max(...[0, 1].map((i) => middle(ends.map((e) => Math.abs(e[i])))))
  const low = Math.max(-reach, Math.min(...ends.map((e) => e[0])))
  const high = Math.min(reach, Math.max(...ends.map((e) => e[1])))
  layer_ranges.histogram.setv({start: low, end: high})
}

function choose(name) {
  state.layer = name
  $("layer").value = name
  const ends = []
  runs.forEach((run, i) => {
    const v = run.variables.indexOf(name)
    for (const statistic in run.sources) {
      const {first, values} = run.measures[statistic], data = {x: [], y: []}
      const log = statistic != "zero_fraction"
      for (let j = 0; v >= 0 && j < first.length; j++) {
        const value = values[v * first.length + j]
        // A log axis has no place for zero; what is not finite is in the heatmap.
        const missing = Number.isNaN(value) && statistic != "norm"
        if (missing) continue
        data.x.push(first[j])
        data.y.push(Number.isFinite(value) && (!log || value > 0) ? value : NaN)
      }
      run.sources[statistic].data = data
    }
    if (run.bins) ends.push(...show_histograms(run, v))
    const list = $("events-" + i)
    const own = run.events.filter((e) => v >= 0 && e.variable === v)
    list.replaceChildren(...(own.length ? own : [{message: "no events in this layer"}]).map((event) => {
      const item = document.createElement("li")
      item.textContent = event.message
      return item
    }))
    mark(run)
  })
  fit_range(layer_ranges.norm, ["norm", "max_abs", "std", "weight_norm"])
  fit_range(layer_ranges.update_ratio, ["update_ratio"])
  fit_histograms(ends)
}

function toggle(block) {
  const open = state.open.includes(block)
  state.open = open ? state.open.filter((name) => name != block) : [...state.open, block]
  rebuild()
}

function tapped(run, x, y) {
  const row = run.rows[Math.floor(y)]
  if (!row) return
  const label = x < x_range.start
  if (row.block && (label || row.end > row.first + 1)) toggle(row.block)
  else choose(run.variables[row.first])
}

// ---- light and dark ------------------------------------------------------------------

const all_charts = runs.flatMap((run) => [...run.charts, run.heatmap.figure, ...run.details])
function paint() {
  const style = getComputedStyle(document.documentElement)
  const color = (name) => style.getPropertyValue("--" + name).trim()
  for (const chart of all_charts) {
    const cells = runs.some((run) => run.heatmap.figure == chart)
    chart.background_fill_color = color(cells ? "unknown" : "page")
    chart.border_fill_color = color("page")
    chart.outline_line_color = color("line")
    for (const part of [...chart.left, ...chart.below, ...chart.center]) {
      if ("major_label_text_color" in part.properties) {
        part.major_label_text_color = color("ink")
        part.axis_label_text_color = color("soft")
        part.axis_line_color = part.major_tick_line_color = color("line")
        part.minor_tick_line_color = null
      }
      if ("grid_line_color" in part.properties && part.grid_line_color) part.grid_line_color = color("line")
      if ("label_text_color" in part.properties) {
        part.label_text_color = color("ink")
        part.background_fill_color = color("page")
      }
    }
    if (cells) for (const axis of chart.left) axis.major_tick_line_color = null
  }
}

// ---- start -----------------------------------------------------------------------------

for (const run of runs) run.grouped = run.variables.length > many
if (state.open === null)
  state.open = runs.filter((run) => !run.grouped).flatMap((run) => run.blocks.map(([name]) => name))
if (runs.length) $("blocks").hidden = !runs.some((run) => run.grouped)

const names = [...new Set(runs.flatMap((run) => run.variables))]
for (const name of names) $("layer").add(new Option(name, name))
if (!names.includes(state.layer)) {
  const events = runs.flatMap((run) => run.events.filter((e) => e.variable !== null).map((e) => [e.step, run.variables[e.variable]]))
  state.layer = events.sort((a, b) => a[0] - b[0])[0]?.[1] ?? names[0]
}

for (const run of runs) {
  for (const chart of run.charts) listen(chart, (x) => on_timeline(run, x))
  for (const chart of run.details) listen(chart, (x) => on_timeline(run, x))
  const {figure} = run.heatmap
  listen(figure, (x, y) => on_heatmap(run, x, y))
  figure.on_event("tap", (e) => tapped(run, e.x, e.y))
  figure.y_range.properties.start.change.connect(() => label_rows(run))
  figure.y_range.properties.end.change.connect(() => label_rows(run))
  figure.properties.inner_width.change.connect(draw_all)
  figure.properties.inner_height.change.connect(() => label_rows(run))
}
for (const end of ["start", "end"]) x_range.properties[end].change.connect(draw_all)

$("measure").value = state.measure
$("measure").onchange = (e) => {
  state.measure = e.target.value
  show_scale()
  draw_all()
}
$("low").onchange = $("high").onchange = set_scale
$("auto").onclick = () => {
  delete state.ranges[state.measure]
  show_scale()
  draw_all()
}
$("layer").onchange = (e) => choose(e.target.value)
$("open").onclick = () => {
  state.open = runs.flatMap((run) => run.blocks.map(([name]) => name))
  rebuild()
}
$("close").onclick = () => {
  state.open = []
  rebuild()
}

if (given.view) {
  // A view that reached the end of a run that is still written continues to do so.
  const [start, end, followed] = given.view
  x_range.setv({start, end: followed ? full[1] : end})
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint)
paint()
show_scale()
rebuild()
if (state.layer !== undefined) choose(state.layer)

// The state that a page that replaces this one continues with.
window.gradwatch = {
  state: () => ({...state, view: [x_range.start, x_range.end, x_range.end >= full[1]]}),
  theme: (name) => {
    document.documentElement.dataset.theme = name
    paint()
  },
  runs,
  x_range,
}
document.body.dataset.ready = "yes"
