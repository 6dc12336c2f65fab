//! Every error of the path, where it came from, and its answer.
