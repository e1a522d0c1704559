//! The control plane: the single writer of the definitions, on its own thread, off the data cores.
//!
//! * [`plane`]: what it does, as a plain value
//! * [`database`]: where durable things are kept; `kept_values`: as which octets; `database_file`: in what kind of file
//! * [`logins`]: whether credentials are right
//! * [`thread`]: the thread around it, and the one that verifies slow password hashes and pokes the shards

pub mod database;
mod database_file;
mod kept_values;
pub mod logins;
pub mod plane;
pub mod thread;
