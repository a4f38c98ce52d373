"""Steps thinned out to the columns that a screen has room for."""

from dataclasses import dataclass

import numpy as np

# Steps before and after an event that keep a column each, while there is room.
AROUND = 25


@dataclass(frozen=True)
class Columns:
    """C columns, each of one or several consecutive recorded steps.

    Attributes:
        starts: int array [C], index of the first recorded step of each column.
        first: int64 array [C], that step.
        last: int64 array [C], the last recorded step of each column.
    """

    starts: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def largest(self, values):
        """Returns the largest of each column, [C, ...]; NaN if all of it is NaN."""
        if not len(self.starts):
            return values[:0]
        return np.fmax.reduceat(values, self.starts, axis=0)


def columns(steps, limit, events=()):
    """Divides T steps into at most `limit` columns, with detail around `events`."""
    starts = np.arange(len(steps))
    if len(steps) > limit:
        near = np.zeros(len(steps), bool)
        for step in events:
            near[slice(*np.searchsorted(steps, (step - AROUND, step + AROUND)))] = True
            if near.sum() > limit // 2:
                break
        # A column ends where steps that are kept begin, and after each of them.
        kept = near | np.roll(near, 1)
        width = len(steps) // limit + 1
        while (chosen := kept | (starts % width == 0)).sum() > limit:
            width += 1
            if width > len(steps):  # `limit` is less than what is near an event
                kept, width = np.zeros_like(near), len(steps) // limit + 1
        starts = starts[chosen]
    ends = np.append(starts[1:], len(steps))[: len(starts)] - 1
    return Columns(starts, steps[starts], steps[ends])
