"""How a system is trained: recipes, crops, loaders, scores, and the loop."""
