"""Operations without parameters that need more than one line of jax.numpy."""
