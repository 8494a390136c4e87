//! Single cases of a lane.
