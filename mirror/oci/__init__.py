"""Terms of the OCI specifications as pure values: no I/O, no asyncio."""
