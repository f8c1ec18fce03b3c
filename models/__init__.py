"""Classic pose systems as thin modules over the operators."""
