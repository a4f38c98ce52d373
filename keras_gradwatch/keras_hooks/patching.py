"""Temporary replacement of functions and methods while a step runs."""

import contextlib
import threading

_lock = threading.Lock()
# (id(owner), name) -> number of steps that run just now, the original, and what the
# owner itself has under this name, `_NOTHING` if only its class has it.
_users: dict = {}
_NOTHING = object()


def original_of(owner, name):
    """Returns what `standing_in` has replaced, or will replace."""
    with _lock:
        return _users.get((id(owner), name), (0, getattr(owner, name)))[1]


@contextlib.contextmanager
def standing_in(owner, **stand_ins):
    """Replaces attributes of an object, class or module in every thread while active.

    A stand-in must keep its own reference to what it replaces; see `original_of`.
    """
    with _lock:
        for name, stand_in in stand_ins.items():
            own = vars(owner).get(name, _NOTHING)
            before = 0, getattr(owner, name), own
            count, *original = _users.get((id(owner), name), before)
            _users[id(owner), name] = count + 1, *original
            if not count:
                _set(owner, name, stand_in)
    try:
        yield
    finally:
        with _lock:
            for name in stand_ins:
                count, original, own = _users.pop((id(owner), name))
                if count > 1:
                    _users[id(owner), name] = count - 1, original, own
                elif own is not _NOTHING:
                    _set(owner, name, own)
                elif isinstance(owner, type):
                    delattr(owner, name)
                else:
                    object.__delattr__(owner, name)


def _set(owner, name, value):
    # Past Keras's tracking. On an instance, so that super() does not come back.
    (setattr if isinstance(owner, type) else object.__setattr__)(owner, name, value)
