"""Being here puts this folder, with the helpers that several test folders share, on the import path."""
