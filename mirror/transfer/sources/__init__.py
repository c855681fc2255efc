"""Sources as they are: what they mis-answer, and how their bytes are received all the same."""
