"""Session stores behind one contract."""
