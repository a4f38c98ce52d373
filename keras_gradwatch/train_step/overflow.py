"""Overflows of a dynamic loss scale: which ones its optimizer deals with by itself."""

from typing import NamedTuple

from keras import ops

# So many overflows in a row are no search for the right scale any more.
IN_A_ROW = 20
# At this scale or below, it is not the scale that takes gradients out of range.
LEAST_SCALE = 1.0


class Overflow(NamedTuple):
    """What is known of an overflow in one step; all scalar bool tensors.

    Attributes:
        handled: The optimizer leaves the update out, and halves its scale.
        lasting: One of a long row: handled, and an event all the same.
    """

    handled: object
    lasting: object


def judge(memory, overflows, scale):
    """Tells an overflow that the loss scale explains from an explosion.

    Gradients that are not finite although the loss is are what a dynamic loss scale
    expects now and then: it halves itself, and nothing is wrong. At a scale of 1 the
    gradients themselves are out of range, and Keras's scale has no floor: it would go
    on to 0, where every gradient is 0/0. Such a step is none of the scale's. And of
    `IN_A_ROW` overflows in a row the last one is an event; then they are counted anew.

    Args:
        memory: What the site remembers, `Packed`.
        overflows: Scalar bool, whether the gradients overflowed; None without a
            dynamic loss scale.
        scale: Scalar float32, the loss scale.

    Returns:
        `Overflow`.
    """
    if overflows is None:
        never = ops.convert_to_tensor(False, "bool")
        return Overflow(never, never)
    in_a_row = ops.where(overflows, memory["overflows"] + 1, 0.0)
    lasting = overflows & (in_a_row >= IN_A_ROW)
    memory.put("overflows", ops.where(lasting, 0.0, in_a_row))
    return Overflow(overflows & (scale > LEAST_SCALE), lasting)
