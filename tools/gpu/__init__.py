"""What only a GPU can tell, prepared so that one command is enough where one is at hand; see tools/gpu/README.md."""
