//! The tree by brute force: slow and simple definitions, for tests and fuzzing only.
