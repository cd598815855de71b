//! Tests of the partial tree.
