//! The envelope that every answer of the API has. Pure.
