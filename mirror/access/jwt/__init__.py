"""JSON Web Tokens of foreign issuers: keys, signatures, claims; pure, with the clock passed in."""
