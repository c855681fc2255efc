"""Limits of clients where requests come in: refused, or made to wait."""
