"""Everything that reaches into Keras by a private name, one hook a file."""
