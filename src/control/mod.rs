//! The control plane: the single writer of the definitions, on its own thread, off the data cores.
//!
//! * [`plane`]: what it does, as a plain value
//! * [`thread`]: the thread around it, and the one that verifies slow password hashes

pub mod plane;
pub mod thread;
