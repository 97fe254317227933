"""Dividing a price between the tiers of a memory."""
