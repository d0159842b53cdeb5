//! How keys and records are laid out (to be written).
