"""YAML → validated settings → snapshot. Every problem at once, with file:line:column; it never half-accepts a file."""
