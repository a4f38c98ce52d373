"""Everything that uses private names of Keras, one hook per file."""
