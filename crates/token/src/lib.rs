//! JOSE: parse, verify, mint; JWKS; the one place a bearer becomes verified
