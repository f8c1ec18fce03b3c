"""pypose_ops inside other projects: one module per project, which imports that project when it is used."""
