//! Pure edits of header maps: hop-by-hop fields (RFC 9110 §7.6.1), Via, authorization.
