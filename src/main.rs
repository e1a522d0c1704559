//! The broker's binary: arguments, then the server.

fn main() {}
