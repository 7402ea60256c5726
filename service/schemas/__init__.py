"""Queries and bodies as clients write them: names, types, ranges."""
