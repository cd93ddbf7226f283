"""What a potential is worth, told from source points: computed after the optimisation, apart from it."""
