"""The experiments of the paper and ours, as a list of cells; one command runs them all."""
