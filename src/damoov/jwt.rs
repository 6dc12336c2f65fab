//! Reading the claims of a JWT; the signing key is not public, so nothing is verified. Pure.
