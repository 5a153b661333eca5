//! A simulated, faulty disk.
