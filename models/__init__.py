"""Models: modules built from the shapes of one sample, which the data names."""
