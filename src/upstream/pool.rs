//! A worker's own connections to the hosts: newest first, bounded, checked before use.
