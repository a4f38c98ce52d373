"""Operations on tensors and variables that `keras.ops` does not have."""
