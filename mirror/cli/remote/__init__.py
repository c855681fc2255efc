"""Commands that ask a running mirror by its API (`--server URL`) instead of opening its cache folder."""
