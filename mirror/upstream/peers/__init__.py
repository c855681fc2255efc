"""Other mirrors of the shared tier as sources."""
