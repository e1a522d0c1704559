//! Field tables and their values in memory of their own: arguments that are kept, and tables that the broker writes.
//!
//! The types on the wire, and how they are read, are in [`field_table`](crate::protocol::field_table).

use crate::protocol::field_table::TableRef;
use crate::protocol::wire::{Reader, SyntaxFault, put_long_string, put_short_string, put_u16, put_u32, put_u64};

/// A table of named values that keeps their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldTable(pub Vec<(Vec<u8>, FieldValue)>);

/// One value of a table or an array. The mirror of [`ValueRef`](crate::protocol::field_table::ValueRef).
///
/// `PartialEq` is for tests: it tells types apart. Arguments are compared with [`equivalent`].
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`
    I64(i64),
    /// `L`
    U64(u64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`
    Decimal {
        /// How many of its decimal digits stand behind the point.
        scale: u8,
        /// All of its digits.
        value: u32,
    },
    /// `S`, of any content.
    LongString(Vec<u8>),
    /// `A`
    Array(Vec<FieldValue>),
    /// `T`, in seconds since 1970.
    Timestamp(u64),
    /// `F`
    Table(FieldTable),
    /// `V`
    Void,
    /// `x`
    Bytes(Vec<u8>),
}

impl FieldTable {
    /// A table without fields.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether it has no fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many fields it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Its fields, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &FieldValue)> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value))
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.0.iter().find_map(|(field, value)| (field == name.as_bytes()).then_some(value))
    }

    /// Sets a field: in its place where the name is there already, else at the end.
    pub fn insert(&mut self, name: &str, value: FieldValue) {
        match self.0.iter_mut().find(|(field, _)| field == name.as_bytes()) {
            Some((_, current)) => *current = value,
            None => self.0.push((name.as_bytes().to_vec(), value)),
        }
    }

    /// Takes the first field of this name out.
    pub fn remove(&mut self, name: &str) -> Option<FieldValue> {
        let place = self.0.iter().position(|(field, _)| field == name.as_bytes())?;
        Some(self.0.remove(place).1)
    }

    /// Appends the table with its length in front.
    ///
    /// # Panics
    /// Where a name has more than 255 octets.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_sized(out, |out| {
            for (name, value) in &self.0 {
                put_short_string(out, name);
                value.encode(out);
            }
        });
    }

    /// The octets of all fields, without the length in front: what [`TableRef::new`] takes.
    ///
    /// # Panics
    /// Where a name has more than 255 octets.
    pub fn to_octets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.split_off(size_of::<u32>())
    }

    /// Reads a table with its length in front.
    ///
    /// # Errors
    /// As [`Reader::table`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, SyntaxFault> {
        Ok(reader.table()?.to_owned_table())
    }
}

impl From<TableRef<'_>> for FieldTable {
    fn from(table: TableRef<'_>) -> Self {
        table.to_owned_table()
    }
}

impl FieldValue {
    /// The value of any integer type. A `U64` beyond [`i64::MAX`] is read as RabbitMQ reads it, as negative.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::I8(value) => Some(value.into()),
            Self::U8(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I64(value) => Some(value),
            Self::U64(value) => Some(value.cast_signed()),
            _ => None,
        }
    }

    /// The value of a long string that is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::LongString(octets) => std::str::from_utf8(octets).ok(),
            _ => None,
        }
    }

    /// The value of a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a float of either width.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(value) => Some(value.into()),
            Self::F64(value) => Some(value),
            _ => None,
        }
    }

    /// RabbitMQ's name of the type, as it stands in its reply texts.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) | Self::U64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal { .. } => "decimal",
            Self::LongString(_) => "longstr",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
            Self::Bytes(_) => "binary",
        }
    }

    /// Appends the type's letter and the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.letter());
        match self {
            Self::Bool(value) => out.push(u8::from(*value)),
            Self::I8(value) => out.push(value.cast_unsigned()),
            Self::U8(value) => out.push(*value),
            Self::I16(value) => put_u16(out, value.cast_unsigned()),
            Self::U16(value) => put_u16(out, *value),
            Self::I32(value) => put_u32(out, value.cast_unsigned()),
            Self::U32(value) => put_u32(out, *value),
            Self::I64(value) => put_u64(out, value.cast_unsigned()),
            Self::U64(value) | Self::Timestamp(value) => put_u64(out, *value),
            Self::F32(value) => put_u32(out, value.to_bits()),
            Self::F64(value) => put_u64(out, value.to_bits()),
            Self::Decimal { scale, value } => {
                out.push(*scale);
                put_u32(out, *value);
            }
            Self::LongString(octets) | Self::Bytes(octets) => put_long_string(out, octets),
            Self::Array(values) => put_sized(out, |out| values.iter().for_each(|value| value.encode(out))),
            Self::Table(table) => table.encode(out),
            Self::Void => {}
        }
    }

    fn letter(&self) -> u8 {
        match self {
            Self::Bool(_) => b't',
            Self::I8(_) => b'b',
            Self::U8(_) => b'B',
            Self::I16(_) => b's',
            Self::U16(_) => b'u',
            Self::I32(_) => b'I',
            Self::U32(_) => b'i',
            Self::I64(_) => b'l',
            Self::U64(_) => b'L',
            Self::F32(_) => b'f',
            Self::F64(_) => b'd',
            Self::Decimal { .. } => b'D',
            Self::LongString(_) => b'S',
            Self::Array(_) => b'A',
            Self::Timestamp(_) => b'T',
            Self::Table(_) => b'F',
            Self::Void => b'V',
            Self::Bytes(_) => b'x',
        }
    }
}

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self::LongString(text.as_bytes().to_vec())
    }
}

impl From<bool> for FieldValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// Whether two arguments mean the same: integers of all widths by their value, likewise floats, all else by type and value.
pub fn equivalent(a: &FieldValue, b: &FieldValue) -> bool {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => return a == b,
        (None, None) => {}
        _ => return false,
    }
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

/// Appends what `put` appends, with its length in four octets in front.
fn put_sized(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_u32(out, 0);
    put(out);
    let octets = out.len() - start - size_of::<u32>();
    let octets = u32::try_from(octets).expect("a table or an array is shorter than 2^32 octets");
    out[start..start + size_of::<u32>()].copy_from_slice(&octets.to_be_bytes());
}
