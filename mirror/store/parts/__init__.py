"""The parts of a store for the event loop, each as small as its callers need it."""
