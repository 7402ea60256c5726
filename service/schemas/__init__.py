"""Queries, bodies and responses as clients see them: names, types, ranges."""
