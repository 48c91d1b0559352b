"""Synthetic model files: random weights in real shapes, for measuring and testing without a download.

`metadata` and `tensors` describe such a file without NumPy; `synthesize` writes it.
"""
