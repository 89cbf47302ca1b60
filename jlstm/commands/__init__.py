"""A room for each command: `add(commands)` declares its options, `run(args)` runs it."""
