"""What the colors mean, and the range that they span."""

import numpy as np

# Decades above and below the median that the colours span at most.
DECADES = 4
ZERO, NOT_FINITE = "#00e5ff", "#ff00ff"

# What was done about an event.
ACTIONS = {
    "observed": "#8a8a8a",
    "clipped": "#e69f00",
    "skipped": "#d62728",
    "reverted": "#9467bd",
    "rate reduced": "#1f77b4",
    "rate restored": "#2ca02c",
    "rewound": "#8c564b",
    "stopped": "#b00020",
}


def palettes():
    """Returns the palettes `sequential` and `diverging`, of 256 colors each."""
    from bokeh.palettes import RdBu11, Viridis256, interp_palette

    return {
        "sequential": list(Viridis256),
        "diverging": list(interp_palette(RdBu11, 256)),
    }


def log_range(arrays):
    """Returns the range of log10 that the colors span, `(low, high)`.

    It consists of quantiles at most `DECADES` from the median, so that an explosion
    does not make all other steps look alike. Only finite positive values count.
    """
    known = logs(arrays)
    if not len(known):
        return -1.0, 1.0
    low, middle, high = np.quantile(known, [0.01, 0.5, 0.99])
    low, high = max(low, middle - DECADES), min(high, middle + DECADES)
    return (low, high) if high - low > 0.01 else (low - 0.5, high + 0.5)


def logs(arrays):
    """Returns log10 of all finite positive values, one array."""
    known = [a[np.isfinite(a) & (a > 0)] for a in arrays]
    return np.log10(np.concatenate([*known, np.zeros(0)]))
