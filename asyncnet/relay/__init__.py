"""Passing mail on: the durable queue, where mail goes next, and what its sender hears of it."""
