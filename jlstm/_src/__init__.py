"""The core of jlstm. Private: every public name is reachable from `jlstm` and its sub-packages."""
