//! Every metric in one struct; labels are enums, so that they stay bounded. Made once in `main` and
//! handed to the components; not global. Never sees a secret.
