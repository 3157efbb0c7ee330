//! exclusive
