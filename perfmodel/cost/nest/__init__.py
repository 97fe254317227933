"""Loop nests: what they count and cost, the mapper that searches for them, the columns of the cost table that they fill."""
