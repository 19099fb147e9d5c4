"""Loss functions: predictions and targets to a scalar, or to a scalar and its terms by name."""
