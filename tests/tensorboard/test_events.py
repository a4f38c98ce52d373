"""Events as Markdown."""

from keras_gradwatch.records.events import Event
from keras_gradwatch.tensorboard.events import as_markdown


def event(kind, message):
    return Event(12, kind, None, 2.0, 1.0, "skipped", f"step 12: {message}")


def test_each_event_is_an_item_below_epoch_and_step():
    events = [
        event("z_score", "norm 2 against 1; limit 1.5; the update was skipped"),
        event("own", "something happened"),
    ]
    items = [
        "- **z_score**: norm 2 against 1; limit 1.5. *The update was skipped.*",
        "- **own**: something happened.",
    ]
    assert as_markdown(events, 3).split("\n") == ["### Epoch 3, step 12", "", *items]
    assert as_markdown(events[:1]).split("\n") == ["### Step 12", "", items[0]]
