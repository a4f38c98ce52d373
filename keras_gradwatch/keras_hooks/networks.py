"""The networks of a model that trains several, by the names its author gave them."""

import keras


def name_of_optimizer(model, optimizer):
    """Returns the model's attribute that holds an optimizer, else its name."""
    names = [n for n, value in _attributes(model) if value is optimizer]
    return names[0] if names else optimizer.name


def name_of_network(model, variables):
    """Returns the model's attribute whose layer has all `variables`, or None."""
    wanted, found = {id(v) for v in variables}, []
    for name, value in _attributes(model):
        if isinstance(value, keras.Layer):
            own = {id(v) for v in value.variables}
            if wanted <= own:
                found.append((len(own), name))
    return min(found)[1] if found else None


def _attributes(model):
    # PyTorch keeps the layers among a module's attributes in a dict of its own.
    own = {**vars(model).get("_modules", {}), **vars(model)}
    return [(name, value) for name, value in own.items() if not name.startswith("_")]
