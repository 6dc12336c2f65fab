//! One worker: a thread with its own runtime, serving connections and owning upstream ones.
