//! Octets to values and back: everything of AMQP 0-9-1 that stands on the wire. No I/O, no clock, no state.
//!
//! What a peer sent is decoded in place: the values borrow from the read buffer and nothing here allocates on the way in.
//! A fault is a value ([`wire::SyntaxFault`], [`exception::ConnectionException`]), never a panic.
//!
//! * [`wire`]: integers, short and long strings
//! * [`field_table`], [`field_value`]: tables of typed values, borrowed and owned
//! * [`frame`]: the envelope of everything that follows the protocol header
//! * [`method`]: one declarative table of all classes and methods (`method_table` turns it into code)
//! * [`properties`]: the content header and its property list
//! * [`content`]: header and body frames on their way out
//! * [`reply_code`], [`exception`]: how a peer is told what was wrong

pub mod content;
pub mod exception;
pub mod field_table;
pub mod field_value;
pub mod frame;
pub mod method;
mod method_table;
pub mod properties;
pub mod reply_code;
pub mod wire;
