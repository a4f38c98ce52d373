"""Events as text for TensorBoard."""


def as_markdown(events, epoch=None):
    """Formats the events of one step as Markdown; `epoch` counts from 1."""
    step = events[0].step
    where = f"Step {step}" if epoch is None else f"Epoch {epoch}, step {step}"
    return "\n".join([f"### {where}", "", *map(_item, events)])


def _item(event):
    """Formats one event; its message is `step N: what; what was done`."""
    words = event.message.removeprefix(f"step {event.step}: ")
    what, _, done = words.rpartition("; ")
    if not what:
        return f"- **{event.kind}**: {words}."
    return f"- **{event.kind}**: {what}. *{done[:1].upper()}{done[1:]}.*"
