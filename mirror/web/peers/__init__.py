"""The listener for other mirrors of the shared tier."""
