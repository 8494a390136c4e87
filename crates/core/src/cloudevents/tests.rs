//! Cases of the mapping.
