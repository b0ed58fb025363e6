"""What is wrong with a dataset, found before anyone trains on it, and repaired copies."""
