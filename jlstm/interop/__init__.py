"""In and out of every neighbour: a room for each, and plain files."""
