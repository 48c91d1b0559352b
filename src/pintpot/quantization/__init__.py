"""Quantizing a model file: which tensor gets which type, from what importance, within what budget."""
