//! Pushes in, signals out.
