"""Kernels of GPU libraries: their times from fitted constants, and the columns of the cost table that they fill."""
