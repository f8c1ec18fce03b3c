"""Training of systems: recipes, crops, loaders, scores, and the loop."""
