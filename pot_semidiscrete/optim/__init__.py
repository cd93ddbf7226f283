"""Maximisation of the semi-dual: averaged ascent, and Newton-CG on the points drawn.

Nothing here knows of certificates: an optimiser returns a potential and what it counted.
"""
