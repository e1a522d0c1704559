//! Turns the table in [`method`](crate::protocol::method) into structs, their decoders and their encoders.
//!
//! A macro and the few functions that its expansion calls; what the methods are stands in the table alone.

use crate::protocol::field_table::TableRef;
use crate::protocol::wire::{Reader, SyntaxFault, TRAILING, put_long_string, put_short_string};

/// Reads arguments; consecutive bits share octets (section 4.2.5.2).
pub struct ArgumentReader<'a> {
    reader: Reader<'a>,
    bits: u8,
    /// The next bit in `bits`; 0 where the next bit begins an octet.
    mask: u8,
}

impl<'a> ArgumentReader<'a> {
    #[inline]
    pub(super) fn new(octets: &'a [u8]) -> Self {
        Self { reader: Reader::new(octets), bits: 0, mask: 0 }
    }

    /// The end of the arguments: nothing may follow.
    #[inline]
    pub(super) fn finish(&self) -> Result<(), SyntaxFault> {
        if self.reader.is_empty() { Ok(()) } else { Err(TRAILING) }
    }

    #[inline]
    pub(super) fn bit(&mut self) -> Result<bool, SyntaxFault> {
        if self.mask == 0 {
            self.bits = self.reader.octet()?;
            self.mask = 1;
        }
        let bit = self.bits & self.mask != 0;
        self.mask <<= 1;
        Ok(bit)
    }
}

/// Everything but bits is read by the [`Reader`] and ends the octet of bits before it.
macro_rules! read_argument {
    ($($name:ident: $type:ty;)*) => {
        impl<'a> ArgumentReader<'a> {
            $(#[inline]
            pub(super) fn $name(&mut self) -> Result<$type, SyntaxFault> {
                self.mask = 0;
                self.reader.$name()
            })*
        }
    };
}

read_argument! {
    octet: u8;
    short: u16;
    long: u32;
    longlong: u64;
    short_string: &'a [u8];
    long_string: &'a [u8];
    table: TableRef<'a>;
}

/// Writes arguments, the mirror of [`ArgumentReader`].
pub struct ArgumentWriter<'o> {
    out: &'o mut Vec<u8>,
    mask: u8,
}

impl<'o> ArgumentWriter<'o> {
    #[inline]
    pub(super) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, mask: 0 }
    }

    #[inline]
    pub(super) fn bit(&mut self, bit: bool) {
        if self.mask == 0 {
            self.out.push(0);
            self.mask = 1;
        }
        if bit && let Some(bits) = self.out.last_mut() {
            *bits |= self.mask;
        }
        self.mask <<= 1;
    }

    #[inline]
    pub(super) fn octet(&mut self, value: u8) {
        self.integer(value.to_be_bytes());
    }

    #[inline]
    pub(super) fn short(&mut self, value: u16) {
        self.integer(value.to_be_bytes());
    }

    #[inline]
    pub(super) fn long(&mut self, value: u32) {
        self.integer(value.to_be_bytes());
    }

    #[inline]
    pub(super) fn longlong(&mut self, value: u64) {
        self.integer(value.to_be_bytes());
    }

    #[inline]
    pub(super) fn short_string(&mut self, value: &[u8]) {
        self.mask = 0;
        put_short_string(self.out, value);
    }

    #[inline]
    pub(super) fn long_string(&mut self, value: &[u8]) {
        self.mask = 0;
        put_long_string(self.out, value);
    }

    #[inline]
    pub(super) fn table(&mut self, value: TableRef<'_>) {
        self.long_string(value.octets());
    }

    #[inline]
    fn integer<const OCTETS: usize>(&mut self, octets: [u8; OCTETS]) {
        self.mask = 0;
        self.out.extend_from_slice(&octets);
    }
}

/// The Rust type of a wire type.
macro_rules! argument_type {
    (bit) => { bool };
    (octet) => { u8 };
    (short) => { u16 };
    (long) => { u32 };
    (longlong) => { u64 };
    (short_string) => { &'a [u8] };
    (long_string) => { &'a [u8] };
    (table) => { $crate::protocol::field_table::TableRef<'a> };
}

/// What is written for a reserved argument.
macro_rules! reserved_value {
    (bit) => {
        false
    };
    (octet) => {
        0
    };
    (short) => {
        0
    };
    (long) => {
        0
    };
    (longlong) => {
        0
    };
    (short_string) => {
        &[]
    };
    (long_string) => {
        &[]
    };
    (table) => {
        $crate::protocol::field_table::TableRef::EMPTY
    };
}

/// The struct of one method. One without arguments is a unit struct.
macro_rules! method_struct {
    ($(#[$doc:meta])* $name:ident {}) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name;
    };
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)? { $($field:ident: $kind:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name $(<$life>)? {
            $(
                #[doc = concat!("The argument `", stringify!($field), "` (", stringify!($kind), ").")]
                pub $field: argument_type!($kind),
            )+
        }
    };
}

/// Writes everything about all methods from one table.
///
/// A line of it is `number "name" Variant Struct { arguments }`. An argument is `name: type`; a type in square brackets
/// is a reserved argument in front of the next one, or, after a semicolon, behind the last. `content` at the end of a
/// line tells that a content header and a body follow.
macro_rules! methods {
    ($(
        $(#[$class_doc:meta])*
        $class:ident $class_id:literal {
            $(
                $(#[$doc:meta])*
                $method_id:literal $full_name:literal $variant:ident $name:ident $(<$life:lifetime>)? {
                    $( $([$before:ident])* $field:ident : $kind:ident ),* $(,)?
                    $( ; $([$behind:ident])+ )?
                } $($content:ident)?
            )*
        }
    )*) => {
        $(
            $(#[$class_doc])*
            pub mod $class {
                #[allow(unused_imports, reason = "not every class has arguments of both sorts")]
                use $crate::protocol::method_table::{
                    ArgumentReader, ArgumentWriter, argument_type, method_struct, reserved_value,
                };
                use $crate::protocol::wire::SyntaxFault;

                $(
                    method_struct! { $(#[$doc])* $name $(<$life>)? { $($field: $kind,)* } }

                    impl $(<$life>)? $name $(<$life>)? {
                        /// The class id and the method id.
                        pub const IDS: (u16, u16) = ($class_id, $method_id);
                        /// Both ids as they stand at the front of a payload, read as one number.
                        pub(super) const ID: u32 = ($class_id << 16) | $method_id;

                        #[inline]
                        #[allow(unused_variables, reason = "methods without arguments read nothing")]
                        pub(super) fn decode(reader: &mut ArgumentReader $(<$life>)?) -> Result<Self, SyntaxFault> {
                            $( $(reader.$before()?;)* let $field = reader.$kind()?; )*
                            $( $(reader.$behind()?;)+ )?
                            Ok(Self { $($field),* })
                        }

                        #[inline]
                        #[allow(unused_variables, reason = "methods without arguments write nothing")]
                        pub(super) fn encode(&self, writer: &mut ArgumentWriter<'_>) {
                            $( $(writer.$before(reserved_value!($before));)* writer.$kind(self.$field); )*
                            $( $(writer.$behind(reserved_value!($behind));)+ )?
                        }
                    }

                    impl<'a> From<$name $(<$life>)?> for super::Method<'a> {
                        fn from(method: $name $(<$life>)?) -> Self {
                            Self::$variant(method)
                        }
                    }
                )*
            }
        )*

        /// One method of any class, with its arguments, borrowed from a frame's payload.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Method<'a> {
            $($( $(#[$doc])* $variant($class::$name $(<$life>)?), )*)*
        }

        impl<'a> Method<'a> {
            #[inline]
            fn decode_arguments(
                id: u32,
                reader: &mut ArgumentReader<'a>,
            ) -> Option<Result<Self, SyntaxFault>> {
                Some(match id {
                    $($( $class::$name::ID => $class::$name::decode(reader).map(Self::$variant), )*)*
                    _ => return None,
                })
            }

            #[inline]
            fn encode_arguments(&self, writer: &mut ArgumentWriter<'_>) {
                match self {
                    $($( Self::$variant(method) => method.encode(writer), )*)*
                }
            }

            /// The class id and the method id.
            #[inline]
            pub fn ids(&self) -> (u16, u16) {
                match self {
                    $($( Self::$variant(_) => ($class_id, $method_id), )*)*
                }
            }

            /// The name in the specification, such as `queue.declare-ok`.
            pub fn name(&self) -> &'static str {
                match self {
                    $($( Self::$variant(_) => $full_name, )*)*
                }
            }

            /// Whether a content header follows, and a body unless it is empty.
            #[inline]
            pub fn carries_content(&self) -> bool {
                match self {
                    $($( Self::$variant(_) => !stringify!($($content)?).is_empty(), )*)*
                }
            }
        }
    };
}

pub(super) use {argument_type, method_struct, methods, reserved_value};
