"""Does the report name what is wrong, and does its advice repair it?

Faults (`faults`) are injected into healthy programs (`fault_programs`). Each program is
trained by stock Keras, beside which the published rules of AutoTrainer and
DeepDiagnosis are asked, and with `GradWatch()`, whose report is graded; then with the
first advice followed mechanically (`repairs`). TensorFlow only.

    python benchmarks/diagnosis.py [--families test] [--only TEXT] [--out DIRECTORY]
"""

import argparse
import functools
import pathlib
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf
from faults import SYMPTOMS, faulty, healthy
from published_rules import Look, autotrainer_diagnosis, deepdiagnosis
from repairs import repaired

from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.reports.report import Report

# Fraction of the healthy program's score at which a program is as good as healthy.
GOOD = 0.9
# Epochs between two looks at tensors; DeepDiagnosis compares those of five epochs.
EVERY = 5
# What the published rules call the symptoms of each label.
STUCK = {"slow convergence", "vanishing", "dying relu", "oscillating", "exploding"}
STUCK |= {"loss", "accuracy", "unchanged", "dead node", "saturated", "out of range"}
STUCK |= {"numerical error"}
NAMES = {
    "explosion": {
        "exploding",
        "dying relu",
        "numerical error",
        "dead node",
        "saturated",
    },
    "data": STUCK,
    "vanishing": {"vanishing", "slow convergence", "unchanged", "loss", "accuracy"},
    "dead": {"dying relu", "dead node", "numerical error", "unchanged"},
    "undefined": {"exploding", "numerical error"},
    "float16": {"exploding", "numerical error"},
}


@dataclass
class Looks(keras.callbacks.Callback):
    """A `Look` after each epoch, as the published rules take one."""

    x: object
    y: np.ndarray
    looks: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def on_epoch_end(self, epoch, logs=None):
        """Looks at losses, and in every fifth epoch at tensors for the first batch."""
        tensors = ([], [], [])
        if epoch % EVERY == 0 or epoch + 1 == self.params["epochs"]:
            tensors = self._tensors()
        self.looks.append(Look(float(logs["loss"]), logs.get("accuracy"), *tensors))

    def _tensors(self):
        model = self.model
        inner = [layer for layer in model.layers if hasattr(layer, "activation")]
        seen = keras.Model(model.input, [layer.output for layer in inner])
        with tf.GradientTape() as tape:
            loss = model.compute_loss(self.x, self.y, model(self.x, training=False))
        found = tape.gradient(loss, model.trainable_variables)
        gradients = [
            np.asarray(tf.convert_to_tensor(g)) for g in found if g is not None
        ]
        outputs = keras.tree.flatten(seen(self.x))
        named = [layer.activation.__name__ for layer in inner]
        return (
            gradients,
            [np.asarray(v) for v in model.trainable_variables],
            [(n, np.asarray(o)) for n, o in zip(named, outputs, strict=True)],
        )


@dataclass
class Outcome:
    """What came out for one program.

    Attributes:
        what: The fault and the program, in words.
        label: Of the fault; None for a healthy program.
        base: Score of the healthy program.
        stock: Score of the faulty one, trained by stock Keras.
        report: `Report` of `GradWatch()`.
        others: Symptoms that AutoTrainer and DeepDiagnosis name, two sets.
        symptom: Whether the report's symptom is right.
        cause: Whether one of its causes is.
        fix: Whether one of its pieces of advice is.
        repaired: Score after the first advice; None: it is not mechanical.
        checks: For each cause that is named, its kind, and whether it is the fault.
    """

    what: str
    label: str | None
    base: float
    stock: float
    report: Report
    others: tuple
    symptom: bool = False
    cause: bool = False
    fix: bool = False
    repaired: float | None = None
    checks: list = field(default_factory=list)

    @property
    def harmed(self):
        """Whether the fault has an effect."""
        return not self.stock >= GOOD * self.base

    @property
    def works(self):
        """Whether the first advice repaired the program."""
        return self.repaired is not None and self.repaired >= GOOD * self.base


@functools.cache
def base_score(program):
    return program.train()


def watched(program, seed=0):
    """The `Report` of a run with `GradWatch()`."""
    watch = GradWatch(verbose=0)
    program.train(seed, [watch])
    return watch.report()


def stock(program, seed=0):
    """Score of stock Keras, and what AutoTrainer and DeepDiagnosis name."""
    x, y = program.arrays(training=True)
    targets = program.targets(y)
    first, targets_of_it = keras.tree.map_structure(
        lambda part: part[: program.batch], (x, targets)
    )
    looks = Looks(first, targets_of_it)
    score = program.train(seed, [looks])
    if not looks.looks:
        return score, (set(), set())
    loss = str(program.loss or "categorical" * (program.task == "classes"))
    loss = "" if program.from_logits else loss
    return score, (
        autotrainer_diagnosis(looks.looks),
        deepdiagnosis(looks.looks, loss, targets),
    )


def grade(outcome, fault):
    """Fills in whether symptom, cause and fix are right."""
    report = outcome.report
    named = [*report.causes, *report.symptoms]
    causes = [f.words for f in named if f.words]
    outcome.cause = any(re.search(fault.cause, words) for words in causes)
    outcome.checks = [
        (f.kind, bool(re.search(fault.cause, f.words)))
        for f in report.causes or report.symptoms
    ]
    kinds = {finding.kind for finding in report.symptoms}
    own = any(re.search(fault.cause, f.words) for f in report.symptoms)
    outcome.symptom = own or bool(kinds & SYMPTOMS[fault.label])
    outcome.fix = any(re.search(fault.fix, fix) for fix in report.fixes)
    return outcome


def try_fault(fault, base, program):
    """The `Outcome` of a faulty program."""
    score, others = stock(program)
    what = f"{fault.name}, {base}"
    outcome = Outcome(what, fault.label, base_score(base), score, None, others)
    outcome.report = watched(program)
    grade(outcome, fault)
    if outcome.harmed and outcome.report.fixes:
        better = repaired(program, outcome.report.fixes[0])
        outcome.repaired = None if better is None else better.train()
    return outcome


def try_healthy(name, program):
    """The `Outcome` of a healthy program."""
    score, others = stock(program)
    report = watched(program)
    return Outcome(f"{name}, {program}", None, score, score, report, others)


def outcomes(families, only=""):
    """The `Outcome` of each program whose name has `only` in it."""
    tasks = [(try_fault, task) for task in faulty(families)]
    tasks += [(try_healthy, task) for task in healthy(families)]
    found = []
    for attempt, task in tasks:
        first, second = (getattr(t, "name", t) for t in task[:2])
        if only not in f"{first}, {second}":
            continue
        begin = time.perf_counter()
        found.append(attempt(*task))
        print(f"{_line(found[-1])} {time.perf_counter() - begin:.1f} s", flush=True)
    return found


def _line(outcome):
    kinds = [f.kind for f in outcome.report.symptoms]
    scores = f"{outcome.stock:.2f} of {outcome.base:.2f}"
    if outcome.label is None:
        return f"healthy: {outcome.what}: {scores} {kinds}"
    right = "".join("-" + n for n in ("symptom", "cause", "fix") if getattr(outcome, n))
    return (
        f"{outcome.label}: {outcome.what}: {scores} {kinds} {right} {outcome.repaired}"
    )


# -- The page --------------------------------------------------------------------------


def share(found, attribute):
    """`count of all` of the outcomes that have it, in words."""
    return f"{sum(bool(getattr(o, attribute)) for o in found)} of {len(found)}"


def named_by(found, which):
    """Outcomes of which a published rule names the symptom, `count of all`."""
    right = [o for o in found if o.others[which] & NAMES.get(o.label, STUCK)]
    return f"{len(right)} of {len(found)}"


def page(found, families):
    """The text of `docs/benchmarks/diagnosis.md`."""
    sick = [o for o in found if o.label and o.harmed]
    unharmed = [o for o in found if o.label and not o.harmed]
    sound = [o for o in found if o.label is None]
    false = [o for o in sound if o.report.symptoms]
    lines = [
        "# Does the report name what is wrong?",
        "",
        "Faults are injected into small healthy programs with scikit-learn and "
        "synthetic data: MLPs, a CNN,",
        "recurrent networks, embeddings, networks with two inputs. The rules were "
        "tuned on the families `dev`.",
        "This page shows the families"
        + (
            " `test`, with different data and fault sizes."
            if families == "test"
            else " `dev`."
        ),
        "A fault *has an effect* if stock Keras ends below 0.9 of the healthy "
        "program's held-out score. A",
        "*symptom* is right if the report names the problem of the run. The *cause* is "
        "right if one of the (at most",
        "three) causes names the fault; the *fix* is right if one of the fixes names "
        "the edit that removes it.",
        "*Repaired* means that following the first advice mechanically "
        "(`benchmarks/repairs.py`) gives 0.9 of the",
        "healthy score.",
        "",
        f"    python benchmarks/diagnosis.py --families {families}",
        "",
        "The kinds of faults are the same in both families, and one author wrote the "
        "faults, the rules and the",
        "patterns that grade the report. So this page does not measure how the report "
        "handles other kinds.",
        "",
        "| label | programs | symptom | cause | fix | repaired | AutoTrainer's symptom "
        "| DeepDiagnosis's symptom |",
        "|---|---|---|---|---|---|---|---|",
    ]
    labels = [*dict.fromkeys(o.label for o in sick)]
    for label in [*labels, None]:
        own = [o for o in sick if label in (o.label, None)]
        cells = [share(own, a) for a in ("symptom", "cause", "fix", "works")]
        cells += [named_by(own, which) for which in (0, 1)]
        lines.append(f"| {label or '**all**'} | {len(own)} | {' | '.join(cells)} |")
    lines += [
        "",
        "AutoTrainer judges classifiers by their training accuracy. DeepDiagnosis "
        "stops at its first finding; this",
        "benchmark checks all of its conditions. A symptom of either counts as right "
        "if the fault can cause it,",
        "which for most labels is any symptom.",
        "",
        *checks(sick),
        "",
        "## Healthy programs",
        "",
        f"Of {len(sound)} healthy programs {len(false)} have a finding in the report; "
        f"AutoTrainer's rules name {sum(bool(o.others[0]) for o in sound)}, "
        f"DeepDiagnosis's {sum(bool(o.others[1]) for o in sound)}.",
        "",
        *[f"- {o.what}: {_words(o.report.symptoms)}" for o in false],
        "",
        "## Misses",
        "",
        "| program | score, of healthy | missed | the report says | first advice |",
        "|---|---|---|---|---|",
    ]
    for o in sick:
        missed = [n for n in ("symptom", "cause", "fix") if not getattr(o, n)]
        missed += [] if o.works else ["repair"]
        if missed:
            says = _words([*o.report.symptoms, *o.report.causes]) or "nothing"
            advice = o.report.fixes[0] if o.report.fixes else ""
            after = "" if o.repaired is None else f" ({o.repaired:.2f} after it)"
            lines.append(
                f"| {o.label}: {o.what} | {o.stock:.2f} of {o.base:.2f} | "
                f"{', '.join(missed)} | {says} | {advice}{after} |"
            )
    counts = Counter(bool(o.report.symptoms) for o in unharmed)
    lines += [
        "",
        "## Why it misses",
        "",
        "- A model that learns a part (too few epochs, no hidden layer, one"
        " unit, targets that are too large) looks like a",
        "  healthy model on hard data. A high loss alone is not reported.",
        "- With small batches and noisy losses, a loss that does not fall "
        "cannot be told from one that falls slowly: a",
        "  learning rate that is too low is missed there.",
        "- Equal targets of a regression are only reported if the loss of every "
        "recent batch is low.",
        "- Most repairs that fail are right edits that do not suffice (the "
        "learning rate of the healthy program was chosen",
        "  with another scale), or are not mechanical: "
        "`benchmarks/repairs.py` does not rewrite a layer.",
        "",
        "## Faults without an effect",
        "",
        f"{len(unharmed)} of the faulty programs score like the healthy ones; the "
        f"report has a finding in {counts[True]} of them: {_list(unharmed)}.",
        "",
    ]
    return "\n".join(lines)


def checks(sick):
    """Lines of a table: how often each cause that is named is the fault."""
    named, wrong = Counter(), {}
    for outcome in sick:
        for kind, right in outcome.checks:
            named[kind] += 1
            wrong.setdefault(kind, [])
            if not right:
                wrong[kind].append(outcome.what)
    lines = [
        "## How often each check is right",
        "",
        "A report names up to three causes, so one that is named beside the fault "
        "counts as wrong here.",
        "",
        "| cause | named | is the fault | an example where it is not |",
        "|---|---|---|---|",
    ]
    for kind, count in named.most_common():
        right, example = count - len(wrong[kind]), (wrong[kind] or [""])[0]
        lines.append(f"| `{kind}` | {count} | {right} | {example} |")
    return lines


def _words(findings):
    return "; ".join(f"{f.kind}: {f.headline or f.words}" for f in findings)


def _list(found):
    return "; ".join(o.what for o in found) or "none"


def main(arguments=None):
    """Runs the families and prints the page; `--out` writes it, too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", choices=["dev", "test"], default="test")
    parser.add_argument("--only", default="", help="part of a program's name")
    parser.add_argument("--out", type=pathlib.Path, help="folder for diagnosis.md")
    arguments = parser.parse_args(arguments)
    found = outcomes(arguments.families, arguments.only)
    text = page(found, arguments.families)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "diagnosis.md").write_text(text, encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
