"""Other ways to the same batches, each importable without the others."""
