"""Plots of recorded steps; matplotlib is imported where one is drawn."""

import numpy as np


def plot(history):
    """Plots loss, gradient norms and learning rate, with events as vertical lines."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, sharex=True, figsize=(9, 6), layout="constrained")
    steps = history.steps
    curves = (
        (("loss", history.loss),),
        (("before clipping", history.global_norm), ("after", history.clipped_norm)),
        (("learning rate", history.learning_rate),),
    )
    titles = ("loss of each step", "global gradient norm", "learning rate")
    for ax, title, lines in zip(axes, titles, curves, strict=True):
        for label, values in lines:
            ax.plot(steps, np.where(np.isfinite(values), values, np.nan), label=label)
        for step in {event.step for event in history.events}:
            ax.axvline(step, color="tab:red", alpha=0.4, linewidth=0.8)
        ax.set_title(title, fontsize="medium")
        ax.set_yscale("log")
    axes[1].legend()
    axes[-1].set_xlabel("step")
    return figure


def heatmap(history):
    """Plots the norm of every variable at every step, on a log scale.

    The colors span the 1st to the 99th percentile of the norms, so that an explosion
    does not make all other steps look alike. Gradients that are not finite are red.
    """
    import matplotlib.pyplot as plt

    names, norms = history.variables, history.statistics["norm"].T
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(norms > 0, np.log10(norms), np.nan)
    finite = np.where(np.isfinite(logs), logs, np.nan)
    known = finite[np.isfinite(finite)]
    low, high = np.quantile(known, [0.01, 0.99]) if len(known) else (0.0, 1.0)
    size = (10, 1.5 + 0.22 * len(names))
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    first, last = (history.steps[[0, -1]] if len(history.steps) else (0, 0)) + np.array(
        [-0.5, 0.5]
    )
    extent = (first, last, len(names) - 0.5, -0.5)
    picture = ax.imshow(
        finite, aspect="auto", extent=extent, vmin=low, vmax=high, cmap="viridis"
    )
    bad = history.statistics["nonfinite_count"].T > 0
    if bad.any():
        mask = np.ma.masked_where(~bad, np.ones_like(finite))
        ax.imshow(mask, aspect="auto", extent=extent, cmap="autumn")
    ax.set_yticks(range(len(names)), names, fontsize="x-small")
    ax.set_xlabel("step")
    figure.colorbar(picture, label="log10 of the gradient norm")
    return figure
