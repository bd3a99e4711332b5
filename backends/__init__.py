"""Graph in, text and a callable out. Imports `passes` and `ir`; no backend imports another."""
