"""The audit log: who was refused, and who pulled what, in a file of its own."""
