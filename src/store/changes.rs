//! The feed (to be written).
