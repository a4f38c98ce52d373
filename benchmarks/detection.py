"""Are bad steps found, in their own step, and are healthy runs left alone?

Healthy runs of many kinds are recorded. Faults of known step and size are put into the
recorded norms and losses, and the rules replayed on them: this package's default
detectors, and three published ones. A smaller part is live: real fits under `GradWatch`
with a batch of a known step spoiled.

    python benchmarks/detection.py [--seeds 0 1 2] [--out docs/benchmarks] [--quick]

It takes about half an hour on two cores, a third of it the replays.
"""

import argparse
import dataclasses
import functools
import pathlib
from collections import defaultdict
from typing import NamedTuple

import healthy_runs
import keras
import numpy as np
from published_rules import RULES
from replay import APART, DENSE, Steps, alarms_of

from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.detectors import NonFinite
from keras_gradwatch.detectors.baseline import LogBaseline
from keras_gradwatch.statistics.names import NAMES

# A fault is looked for in so many steps, its own included.
SOON = 20
# A spike is a multiple of the largest norm of so many healthy steps before it.
PAST = 200
SIZES = (3, 10, 30, 100, 1e3, 1e6)
OURS = "GradWatch"
NORM = NAMES.index("norm")

DETECTORS = [*(watch := GradWatch(verbose=0)).detectors, *watch.reported]
# What they judge is one number a step: that is what the faults are put into.
OF_A_NUMBER = [d for d in DETECTORS if isinstance(d, LogBaseline | NonFinite)]


# -- Rules -----------------------------------------------------------------------------


def judge(recorded, norm, loss):
    """Alarms, bool [T, B], of every set of rules on norms and losses [T, B]."""
    one = recorded.statistics[:, :1], recorded.sizes[:1], recorded.kernels[:1]
    ours = [
        np.any(list(alarms_of(OF_A_NUMBER, Steps(n, of_n, *one)).values()), axis=0)
        for n, of_n in zip(norm.T, loss.T, strict=True)
    ]
    norms = recorded.statistics[:, recorded.kernels, NORM]
    # A fault scales the gradients of all variables alike.
    ratio = (norms[:, 0] / np.maximum(norms[:, -1], 1e-30))[:, None]
    with np.errstate(all="ignore"):
        theirs = {name: rule(norm, loss, ratio) for name, rule in RULES.items()}
    return {OURS: np.stack(ours, axis=1), **theirs}


# -- Faults ----------------------------------------------------------------------------


class Case(NamedTuple):
    """One recorded run with a fault.

    Attributes:
        fault: What was put in.
        where: In which steps.
        steps: Array of these, or the first of a lasting one.
        norm: Array [T].
        loss: Array [T].
    """

    fault: str
    where: str
    steps: object
    norm: object
    loss: object


def largest_before(values, step):
    """The largest of the `PAST` steps before `step`."""
    return np.abs(values[max(0, step - PAST) : step]).max()


def places(recorded, random):
    """Where to put a fault: words, and an array of steps."""
    count, epoch = len(recorded.norm), recorded.epoch
    begin = random.integers(4, min(epoch, 40) + 4)
    every = max(epoch, 25)
    found = {
        "step 4 to 20": [[step] for step in (4, *random.integers(5, 21, 2))],
        "later": [[step] for step in random.integers(21, int(0.9 * count), 3)],
        "the last tenth": [[random.integers(int(0.9 * count), count - SOON)]],
        "once an epoch": [range(begin, count - SOON, every)],
    }
    return [(where, np.array(list(s))) for where, group in found.items() for s in group]


def cases(recorded, random):
    """Yields a `Case` for each fault and place."""
    norm, loss = recorded.norm, recorded.loss

    def spiked(values, steps, size):
        values = values.copy()
        healthy = values.copy()
        for step in steps:
            # One in a thousand more, so that rounding takes nothing away.
            values[step] = 1.001 * size * largest_before(healthy, step)
        return values

    for where, steps in places(recorded, random):
        for bad in (np.nan, np.inf):
            broken = norm.copy()
            broken[steps] = bad
            yield Case("gradient not finite", where, steps, broken, loss)
        broken = loss.copy()
        broken[steps] = np.nan
        yield Case("loss not finite", where, steps, norm, broken)
        for size in SIZES:
            higher = spiked(norm, steps, size)
            yield Case(f"norm × {size:g}", where, steps, higher, loss)
            higher = spiked(loss, steps, size)
            yield Case(f"loss × {size:g}", where, steps, norm, higher)
    middle = len(norm) // 2
    for size in (1e3, 1e-3):
        scale = np.where(np.arange(len(norm)) < middle, 1.0, size)
        yield Case(
            f"lasting × {size:g}", "later", np.array([middle]), norm * scale, loss
        )


class Found(NamedTuple):
    """What a rule made of one case.

    Attributes:
        own: Fraction of the faults found in their own step.
        delays: List of the delays of those that were found at all, in steps.
        more: Alarms in other steps that it does not give on the healthy run, for each
            fault.
        last: Steps from the first fault to the last such alarm, 0: none.
    """

    own: float
    delays: list
    more: float
    last: int


def grade(alarms, healthy, steps):
    """`Found`, from the alarms [T] on a case and on the healthy run."""
    new = alarms & ~healthy
    delays = []
    for step in steps:
        # In its own step an alarm is right, whatever the rule says of the healthy one.
        soon = np.flatnonzero(new[step : step + SOON])
        if alarms[step]:
            delays.append(0)
        elif len(soon):
            delays.append(int(soon[0]))
    others = new.copy()
    others[steps] = False
    after = np.flatnonzero(others)
    last = int(after[-1] - steps[0]) if len(after) else 0
    return Found(alarms[steps].mean(), delays, others.sum() / len(steps), last)


def largest_jump(values, past=100):
    """The largest value, against the largest of the steps before; zeros left out."""
    values = np.abs(values[values != 0])
    before = np.lib.stride_tricks.sliding_window_view(values, past).max(axis=1)
    return (values[past:] / before[:-1]).max()


# -- The replayed part -----------------------------------------------------------------


class Results:
    """What all seeds gave."""

    def __init__(self):
        self.steps = defaultdict(int)  # healthy steps, by run
        self.losses = defaultdict(list)  # first and last, by run
        self.jumps = defaultdict(list)  # of the norm and of the loss, by run
        self.false = defaultdict(int)  # alarms on healthy steps, by (run, rules)
        self.false_of = defaultdict(int)  # the same by detector
        self.found = defaultdict(list)  # `Found`, by (fault, where, rules)
        self.live = []  # `Live`

    def add(self, recorded, random):
        """Judges one healthy run, and the faults put into it."""
        name, norm, loss = recorded.run.name, recorded.norm, recorded.loss
        self.steps[name] += len(norm)
        self.losses[name].append((loss[:20].mean(), loss[-100:].mean()))
        self.jumps[name].append((largest_jump(norm), largest_jump(loss)))
        ours = alarms_of(DETECTORS, Steps(norm, loss, *recorded[3:6]))
        for detector, alarms in ours.items():
            self.false_of[detector] += alarms.sum()
        made = [Case("none", "", np.array([0]), norm, loss), *cases(recorded, random)]
        found = judge(
            recorded,
            np.stack([c.norm for c in made], axis=1),
            np.stack([c.loss for c in made], axis=1),
        )
        for rules, alarms in found.items():
            healthy = alarms[:, 0]
            count = np.any(list(ours.values()), axis=0) if rules == OURS else healthy
            self.false[name, rules] += count.sum()
            for case, column in zip(made[1:], alarms.T[1:], strict=True):
                graded = grade(column, healthy, case.steps)
                self.found[case.fault, case.where, rules].append(graded)

    def of(self, fault, rules, where=None):
        """All `Found` of a fault, anywhere or in one place."""
        return [
            graded
            for (f, w, r), group in self.found.items()
            if f == fault and r == rules and where in (None, w)
            for graded in group
        ]

    def recall(self, fault, rules, where=None):
        """Fraction of the cases' faults that were found in their own step."""
        return float(np.mean([g.own for g in self.of(fault, rules, where)]))

    def false_alarms(self, rules, part=""):
        """`(alarms, healthy steps)` of the runs whose names begin with `part`."""
        names = [name for name in self.steps if name.startswith(part)]
        return (
            sum(self.false[name, rules] for name in names),
            sum(self.steps[name] for name in names),
        )


def measure(runs, spoiled, faults, seeds, say=print):
    """Records and judges `runs`, and lives through `faults` of `spoiled`: `Results`."""
    results = Results()
    for seed in seeds:
        for run in runs:
            recorded = run.record(seed)
            keras.backend.clear_session()
            results.add(recorded, np.random.default_rng(seed))
            first, last = results.losses[run.name][-1]
            alarms = {r: int(results.false[run.name, r]) for r in (OURS, *RULES)}
            say(f"{run.name}, seed {seed}: {first:.2g} to {last:.2g}, {alarms}")
    for run in spoiled:
        for fault in faults:
            if fault.startswith("inputs") or run.loss == "mse":
                results.live.append(live(run, fault, seeds[0]))
                keras.backend.clear_session()
                say(f"live: {results.live[-1]}")
    return results


# -- The live part ---------------------------------------------------------------------

FAULTS = {
    "inputs NaN": np.nan,
    "inputs infinite": np.inf,
    "inputs × 1e4": 1e4,
    "targets NaN": np.nan,
    "targets × 1e4": 1e4,
}


class Live(NamedTuple):
    """A real fit under `GradWatch` with spoiled batches.

    Attributes:
        run: Its name.
        fault: What was done to the batches.
        steps: The steps of those that came to a norm or loss that is not finite, or to
            a norm of 100 times the largest before. The others did no harm: pixels that
            are 10,000 times too bright may leave a digit known beyond doubt.
        size: Least norm of these steps, against the largest of the steps before; NaN
            where it was not finite.
        found: Set of those of the steps that have an event.
        others: Number of other steps that have one.
        theirs: Dict of the fraction that each of the published rules finds.
    """

    run: str
    fault: str
    steps: tuple
    size: float
    found: set
    others: int
    theirs: dict


def live(run, fault, seed):
    """Trains with spoiled batches, and returns a `Live`."""
    model, x, y = run.make(seed)
    count = 200 if run.batch > 1 else 400
    steps = (5, 60, 90, count - 10)
    random = np.random.default_rng(seed)
    epochs = -(-count * run.batch // len(x))
    order = np.concatenate([random.permutation(len(x)) for _ in range(epochs)])
    order = order[: count * run.batch]
    x, y = x[order], y[order]
    harmed = x if fault.startswith("inputs") else y
    for step in steps:
        rows = slice(step * run.batch, (step + 1) * run.batch)
        # A pixel of 0 times infinity is NaN: both are put in as they are.
        if np.isfinite(FAULTS[fault]):
            harmed[rows] *= FAULTS[fault]
        else:
            harmed[rows] = FAULTS[fault]
    watch = GradWatch(verbose=0)
    model.fit(x, y, run.batch, shuffle=False, verbose=0, callbacks=[watch])
    history = watch.history
    # Faults of which a run that was stopped is spared are not found, either.
    missing = (0, count - len(history.loss))
    norm, loss = (
        np.pad(values, missing, constant_values=np.nan)
        for values in (history.global_norm, history.loss)
    )
    healthy = norm.copy()
    healthy[list(steps)] = 0.0
    sizes = {s: norm[s] / largest_before(healthy, s) for s in steps}
    steps = tuple(s for s in steps if not (sizes[s] < 100 and np.isfinite(loss[s])))
    size = min(sizes[s] for s in steps)
    events = {event.step for event in watch.events}
    kernels = [v.ndim > 1 for v in model.trainable_variables]
    norms = history.statistics["norm"][:, kernels]
    with np.errstate(all="ignore"):
        ratio = np.pad(norms[:, 0] / norms[:, -1], missing, constant_values=np.nan)
        one = norm[:, None], loss[:, None], ratio[:, None]
        theirs = {
            name: float(rule(*one)[list(steps), 0].mean())
            for name, rule in RULES.items()
        }
    others = len(events - set(steps))
    return Live(
        run.name, fault, steps, float(size), events & set(steps), others, theirs
    )


# -- The page --------------------------------------------------------------------------


def table(head, rows):
    """Lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


EVERYONE = (OURS, *RULES)


def recalls(results):
    """Fraction of the faults that each set of rules finds in their own step."""
    kinds = ("norm", "loss")
    faults = ["gradient not finite", "loss not finite"]
    faults += [f"{kind} × {size:g}" for kind in kinds for size in SIZES]
    rows = []
    for fault in faults:
        shares = [f"{results.recall(fault, r):.3f}" for r in EVERYONE]
        delays = [d for found in results.of(fault, OURS) for d in found.delays]
        delay = max(delays, default="–")
        rows.append([fault, len(results.of(fault, OURS)), *shares, delay])
    return table(["fault", "cases", *EVERYONE, f"longest delay of {OURS}"], rows)


def by_place(results):
    """The same of this package, by the steps that the faults were put into."""
    places = dict.fromkeys(w for f, w, _ in results.found if "lasting" not in f)
    rows = []
    for where in places:
        shares = [results.recall(f"norm × {s:g}", OURS, where) for s in SIZES]
        bad = results.recall("gradient not finite", OURS, where)
        rows.append([where, f"{bad:.3f}", *(f"{share:.3f}" for share in shares)])
    return table(["where", "not finite", *(f"norm × {s:g}" for s in SIZES)], rows)


def afterwards(results):
    """Alarms in other steps than those of the faults, at most."""
    rows = []
    for fault in (
        "gradient not finite",
        "norm × 1000",
        "norm × 1e+06",
        "lasting × 1000",
        "lasting × 0.001",
    ):
        cells = []
        for rules in EVERYONE:
            found = results.of(fault, rules)
            more = max(round(f.more + f.own * ("lasting" in fault)) for f in found)
            cells.append(f"{more}, {max(f.last for f in found)}")
        rows.append([fault, *cells])
    return table(["fault", *EVERYONE], rows)


def false_alarms(results):
    """Alarms on healthy runs."""
    rows = []
    for name, steps in results.steps.items():
        first, last = np.mean(results.losses[name], axis=0)
        jump, jump_of_loss = np.max(results.jumps[name], axis=0)
        counts = [int(results.false[name, r]) for r in EVERYONE]
        losses = f"{first:.2g} → {last:.2g}"
        jumps = f"{jump:.2g}, {jump_of_loss:.2g}"
        rows.append([name, f"{steps:,}", losses, jumps, *counts])
    for title, part in (("**all**", ""), ("**batch 1**", "batch 1")):
        steps = results.false_alarms(OURS, part)[1]
        if steps:
            per = [results.false_alarms(r, part)[0] / steps * 1e4 for r in EVERYONE]
            cells = [f"**{value:.2f}** in 10,000" for value in per]
            rows.append([title, f"{steps:,}", "", "", *cells])
    head = ["healthy run", "steps", "loss", "largest jump", *EVERYONE]
    return table(head, rows)


def live_rows(results):
    """The real fits."""
    rows = []
    for found in results.live:
        size = "not finite" if np.isnan(found.size) else f"{found.size:.2g}"
        ours = f"{len(found.found)} of {len(found.steps)}"
        theirs = [f"{found.theirs[r]:.2f}" for r in RULES]
        rows.append([found.run, found.fault, size, ours, found.others, *theirs])
    head = ["run", "batch", "least norm, ×", OURS, "events in other steps", *RULES]
    return table(head, rows)


SHORT = """\
## Limitations

- **Spikes of 3 to 100 times.** `ZScore` and `LossSpike` require 10 times the mean
  and 6 standard deviations of the logarithm. With batch size 1, healthy steps
  spread over a factor of 100 and more, so a spike of 30 times the largest may lie
  within 6 deviations. The bound is as high as 100 times because the values of healthy
  runs also jump: see the largest jumps with batch size 1. OLMo-core finds small spikes
  after 63 steps, at the price of false alarms.
- **Spikes that recur.** Once an epoch, spikes of up to 1,000 times the first norms, or
  10,000 times the first losses, are found three times; then they are taken for
  [rare data](../methods/z_score.md).
- **The first three steps** are judged only by `NonFinite` and the trust bound.
- **A lasting rise** causes at most `patience` = 5 alarms and then becomes the new
  level. `Divergence` decides whether the run has diverged. A fall causes no alarm.
- **Steps without any gradient** (a satisfied hinge loss) are ignored. So with a
  hinge loss and batch size 1, the newest 100 to 200 steps with a gradient reach
  further back than the 200 steps that define the size of a fault. This is why
  loss spikes of 100 times are missed there. If these steps counted, each gradient after
  them would be a spike.

The comparison has limits: AutoTrainer checks one batch in every third epoch, and
looks for networks that explode because of their depth, not for bad batches. A fault
that scales all gradients alike does not change its ratio. ZClip only clips, so a false
alarm costs little there, and in a real run its clipping affects later norms. Neither of
the two checks the size of the loss.
"""


def page(results, command):
    """`detection.md`."""
    alarms, steps = results.false_alarms(OURS)
    tripped = {d: int(n) for d, n in results.false_of.items() if n}
    which = ", ".join(f"`{d}` {n}" for d, n in tripped.items())
    which = f" ({which})" if which else ""
    return "\n".join(
        [
            "# Are bad steps found?",
            "",
            "This benchmark inserts faults of known step and size into recorded norms "
            "and losses of healthy runs, and",
            "replays the rules on them: the default detectors of `GradWatch()`, "
            "AutoTrainer's explosion rule (Zhang et al., ICSE 2021),",
            "OLMo-core's skip-step optimizer (mean + 6σ over 128 steps), and ZClip "
            "(Kumar et al. 2025, z > 2.5). The last three",
            "are the published rules in NumPy, applied at every step. The size of a "
            "fault is relative to the largest of the",
            f"{PAST} healthy steps before. As in a real run, `GradWatch()` updates its "
            f"limits after each of the first {DENSE} steps and",
            f"of the {DENSE} steps after an event, and otherwise after every {APART}th "
            "step.",
            "",
            f"    {command}",
            "",
            "![recall and false alarms](detection.png)",
            "",
            "## Recall",
            "",
            "Fraction of the faults that are found in their own step, and the longest "
            f"delay of the faults found within {SOON} steps.",
            "",
            *recalls(results),
            "",
            f'{OURS} by the position of faults in the norm. "Once an epoch" means '
            "every 25 steps if an epoch is shorter.",
            "",
            *by_place(results),
            "",
            "## False alarms",
            "",
            f"All eight default detectors, applied at every step: {int(alarms)} alarms "
            f"in {steps:,} healthy steps{which}.",
            "The loss column has the means of the first 20 and of the last 100 steps. "
            "The largest jump is the largest",
            "ratio of a step to the maximum of the 100 steps before, for the norm and "
            "for the loss.",
            "",
            *false_alarms(results),
            "",
            "## Alarms after a fault",
            "",
            "The largest number of alarms in other steps for one fault, and the "
            "largest number of steps from the first",
            "fault to the last such alarm. For a lasting change of scale in the middle "
            "of a run, all alarms count.",
            "",
            *afterwards(results),
            "",
            "## Real runs",
            "",
            "Real fits under `GradWatch()` with four bad batches, the first at step 5. "
            "The table counts events in these steps",
            "and in others. It excludes batches that did no harm, with a norm below "
            "100 times the largest before: the model may",
            "classify a digit correctly although it is 10,000 times too bright. The "
            "published rules judge the same fits.",
            "",
            *live_rows(results),
            "",
            SHORT,
        ]
    )


def draw(results, path):
    """Recall by size, and false alarms."""
    from matplotlib.figure import Figure

    figure = Figure((9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for rules in EVERYONE:
        shares = [results.recall(f"norm × {size:g}", rules) for size in SIZES]
        left.plot(SIZES, shares, "o-", label=rules)
    left.set(xscale="log", ylim=(-0.03, 1.03), ylabel="found in its own step")
    left.set_xlabel(f"spike, times the largest norm of {PAST} healthy steps")
    left.legend(loc="lower right", bbox_to_anchor=(1, 0.08))
    parts = {"all runs": "", "batch size 1": "batch 1"}
    for index, (title, part) in enumerate(parts.items()):
        counts = [results.false_alarms(rules, part) for rules in EVERYONE]
        rates = [1e4 * alarms / max(steps, 1) for alarms, steps in counts]
        places = np.arange(len(EVERYONE)) + 0.4 * index
        bars = right.bar(places, rates, 0.38, label=title)
        right.bar_label(bars, [f"{rate:.0f}" for rate in rates], fontsize=8)
    right.set_yscale("symlog", linthresh=1.0)
    right.set_ylim(0, 1e4)
    right.set_xticks(np.arange(len(EVERYONE)) + 0.2, EVERYONE)
    right.set_ylabel("false alarms in 10,000 steps")
    right.legend()
    figure.savefig(path, dpi=110)


LIVE = (
    "MLP, Adam",
    "convolutions, Adam",
    "regression, Adam",
    "batch 1, MLP, momentum",
    "batch 1, regression, momentum",
)
QUICK = ("MLP, SGD", "batch 1, regression, momentum")


def main(arguments=None):
    """Measures everything and prints the page; `--out` writes it. Returns `Results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="a part, half a minute")
    parser.add_argument("--out", type=pathlib.Path, help="folder for detection.md")
    arguments = parser.parse_args(arguments)
    runs = healthy_runs.RUNS
    spoiled = [run for run in runs if run.name in LIVE]
    faults, seeds = FAULTS, arguments.seeds
    if arguments.quick:
        faults, seeds = ("inputs NaN", "targets × 1e4"), seeds[:1]
        runs = [r for r in runs if r.name in QUICK]
        runs = [dataclasses.replace(r, steps=min(r.steps, 400)) for r in runs]
        spoiled = [run for run in runs if run.loss == "mse"]
    say = functools.partial(print, flush=True)
    results = measure(runs, spoiled, faults, seeds, say)
    command = f"python benchmarks/detection.py --seeds {' '.join(map(str, seeds))}"
    text = page(results, command + " --quick" * arguments.quick)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "detection.md").write_text(text, encoding="utf-8")
        draw(results, arguments.out / "detection.png")
    return results


if __name__ == "__main__":
    main()
