"""Events as a text that TensorBoard shows."""


def as_markdown(events, epoch=None):
    """The events of one step as Markdown.

    Args:
        events: List of `Event`s of one step.
        epoch: The epoch, from 1; None: not known.
    """
    step = events[0].step
    where = f"Step {step}" if epoch is None else f"Epoch {epoch}, step {step}"
    return "\n".join([f"### {where}", "", *map(_item, events)])


def _item(event):
    """One event; its message is `step N: what; what was done`."""
    words = event.message.removeprefix(f"step {event.step}: ")
    what, _, done = words.rpartition("; ")
    if not what:
        return f"- **{event.kind}**: {words}."
    return f"- **{event.kind}**: {what}. *{done[:1].upper()}{done[1:]}.*"
