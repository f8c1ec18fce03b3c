"""Integrations into other libraries: one module each, which imports the library on use."""
