"""Chooses the steps of a long run that stay in its record."""

import numpy as np

from keras_gradwatch.records.incidents import QUIET

# Steps before and after an event that stay, each of them, where there is room.
AROUND = 50


def chosen(steps, sizes, events, limit):
    """Chooses at most `limit` of T steps; returns a bool array [T].

    Up to half of them are the last ones (a tenth of `limit`) and those around events.
    Of every `stride` other steps, the first and the largest are kept; `stride` is the
    smallest power of two for which at most `limit` steps are left.

    Args:
        steps: int64 array [T], ascending.
        sizes: float array [T]; a step with an event, or NaN, counts as the largest.
        events: int array [E], ascending, steps with an event.
        limit: int, at least 10.
    """
    if len(steps) <= limit:
        return np.ones(len(steps), bool)
    kept = _detail(steps, np.asarray(events, np.int64), limit)
    rest = np.flatnonzero(~kept)
    sizes = np.where(np.isnan(sizes) | np.isin(steps, events), np.inf, sizes)
    stride = 2
    while True:
        grid = rest[_of_each(steps[rest] // stride, sizes[rest])]
        if kept.sum() + len(grid) <= limit:
            kept[grid] = True
            return kept
        stride *= 2


def near(steps, events, radius):
    """Returns which steps have an event at most `radius` steps away, bool array [T]."""
    if not len(events):
        return np.zeros(len(steps), bool)
    after = np.searchsorted(events, steps)
    following = events[np.minimum(after, len(events) - 1)]
    before = events[np.maximum(after - 1, 0)]
    return np.minimum(abs(following - steps), abs(steps - before)) <= radius


def _detail(steps, events, limit):
    """Returns the last steps, and those around events, up to half of `limit`."""
    always = steps > steps[-1] - max(limit // 10, 1)
    always |= near(steps, events[:1], AROUND)
    onsets = events[np.diff(events, prepend=-QUIET - 1) > QUIET]
    for places, radius in (
        (events, AROUND),
        *((onsets, radius) for radius in (AROUND, 25, 10, 3, 0)),
    ):
        kept = always | near(steps, places, radius)
        if kept.sum() <= limit // 2:
            return kept
    return always if always.sum() <= limit // 2 else np.zeros(len(steps), bool)


def _of_each(buckets, sizes):
    """Returns the places of each bucket's first and largest step, ascending."""
    if not len(buckets):
        return np.zeros(0, np.int64)
    begins = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
    order = np.lexsort((sizes, buckets))
    largest = order[np.append(begins[1:], len(buckets)) - 1]
    return np.union1d(begins, largest)
