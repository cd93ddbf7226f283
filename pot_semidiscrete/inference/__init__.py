"""How good a potential is, estimated from source points: after the optimisation, apart from it."""
