"""Functional and subclass style of one `keras.Model` subclass, in one process."""

import functools

import keras


def class_to_make(cls, args, kwargs):
    """Returns the class to instantiate: `cls`, or its functional-style sibling."""
    functional = (
        len(args) == 2
        or (len(args) == 1 and "outputs" in kwargs)
        or {"inputs", "outputs"} <= set(kwargs)
    )
    if functional and not hasattr(cls, "_functional_style"):
        return functional_class(cls)
    return cls


@functools.cache
def functional_class(cls):
    """Returns the functional-style sibling of a `GradWatchModel` class.

    Calling a class with inputs and outputs makes Keras rewrite its `__bases__` for
    good, which rules out subclass-style models. The sibling leaves `cls` as it is.
    """
    inputs = keras.Input((1,))
    functional = type(keras.Model(inputs, inputs))
    sibling = type(
        cls.__name__,
        (cls, functional),
        {
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__doc__": cls.__doc__,
            "__init__": cls.__init__,
            "_functional_style": True,
            # Only `cls` can be found by its name when a pickled model is read.
            "_unpickle_model": cls._unpickle_model,
        },
    )
    # Both are saved under the name of `cls`; what is loaded is `cls`, registered last.
    package, _, name = keras.saving.get_registered_name(cls).rpartition(">")
    if package:
        register = keras.saving.register_keras_serializable(package, name)
        register(sibling)
        register(cls)
    return sibling
