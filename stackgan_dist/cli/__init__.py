"""What all commands have in common on the command line: options, help, where a configuration comes from, endings."""
