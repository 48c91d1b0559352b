"""Parts of `examples/train_demo.py`: data, model, optimizer and export of pintpot's demo model."""
