"""What goes where, which context fits and how fast it will be, before anything is loaded."""
