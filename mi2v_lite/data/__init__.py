"""Training and test data made by the package itself: a world with exact flow, and stores of its clips."""
