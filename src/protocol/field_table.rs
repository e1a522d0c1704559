//! Field tables as they stand on the wire: validated once, then read in place.
//!
//! The types are those that RabbitMQ reads, which differ from the specification's (section 4.2.1) in their letters:
//!
//! | letter | type | letter | type |
//! |---|---|---|---|
//! | `t` | boolean | `d` | 64-bit float |
//! | `b`, `B` | 8 bits, signed and unsigned | `D` | decimal: scale octet, 32 bits |
//! | `s`, `u` | 16 bits, signed and unsigned | `S` | long string |
//! | `I`, `i` | 32 bits, signed and unsigned | `A` | array |
//! | `l`, `L` | 64 bits | `T` | 64-bit timestamp, in seconds |
//! | `f` | 32-bit float | `F` | table |
//! | `V` | void | `x` | octets |
//!
//! RabbitMQ reads `L` as a signed integer and writes it as `l`. Here it keeps its letter, and
//! [`FieldValue::as_i64`] reads it as RabbitMQ does.
//!
//! Source: <https://www.rabbitmq.com/amqp-0-9-1-errata>, section 3.

pub use crate::protocol::field_value::{FieldTable, FieldValue, equivalent};

use crate::limits::FIELD_TABLE_DEPTH_MAX;
use crate::protocol::wire::{Reader, SyntaxFault};

/// A table of fields in somebody else's memory, without its length. Well-formed: whoever makes one has validated it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRef<'a> {
    octets: &'a [u8],
}

/// An array of values in somebody else's memory, without its length. Well-formed, as a [`TableRef`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArrayRef<'a> {
    octets: &'a [u8],
}

/// One value of a table or an array, in somebody else's memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// `t`: any octet but 0 is true.
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s` (a short string in the specification)
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
        /// All of its digits. Unsigned, as RabbitMQ reads it.
        value: u32,
    },
    /// `S`, of any content.
    LongString(&'a [u8]),
    /// `A`
    Array(ArrayRef<'a>),
    /// `T`, in seconds since 1970.
    Timestamp(u64),
    /// `F`
    Table(TableRef<'a>),
    /// `V`
    Void,
    /// `x`
    Bytes(&'a [u8]),
}

impl<'a> TableRef<'a> {
    /// The table without fields.
    pub const EMPTY: TableRef<'static> = TableRef { octets: &[] };

    /// A table of `octets`, which hold its fields without the length in front.
    ///
    /// # Errors
    /// Where they are malformed, of an unknown type, or nested deeper than [`FIELD_TABLE_DEPTH_MAX`].
    pub fn new(octets: &'a [u8]) -> Result<Self, SyntaxFault> {
        validate(octets)?;
        Ok(Self { octets })
    }

    /// A table that has been validated before, as a part of the same octets.
    #[inline]
    pub(super) const fn of_validated(octets: &'a [u8]) -> Self {
        Self { octets }
    }

    /// The octets of all fields, without the length in front.
    #[inline]
    pub const fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// Whether it has no fields.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Its fields, in their order. A name may come more than once.
    #[inline]
    pub fn iter(self) -> Fields<'a> {
        Fields { reader: Reader::new(self.octets) }
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &[u8]) -> Option<ValueRef<'a>> {
        self.iter().find_map(|(field, value)| (field == name).then_some(value))
    }

    /// A copy that owns its memory.
    pub fn to_owned_table(&self) -> FieldTable {
        FieldTable(self.iter().map(|(name, value)| (name.to_vec(), value.to_owned_value())).collect())
    }
}

impl<'a> ArrayRef<'a> {
    /// The octets of all values, without the length in front.
    #[inline]
    pub const fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// Whether it has no values.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Its values, in their order.
    #[inline]
    pub fn iter(self) -> Values<'a> {
        Values { reader: Reader::new(self.octets) }
    }
}

impl<'a> IntoIterator for TableRef<'a> {
    type Item = (&'a [u8], ValueRef<'a>);
    type IntoIter = Fields<'a>;

    fn into_iter(self) -> Fields<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for ArrayRef<'a> {
    type Item = ValueRef<'a>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

/// The fields of a table: name and value.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], ValueRef<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // The table is well-formed: a fault is its end.
        let name = self.reader.short_string().ok()?;
        Some((name, value(&mut self.reader).ok()?))
    }
}

/// The values of an array.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = ValueRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<ValueRef<'a>> {
        value(&mut self.reader).ok()
    }
}

impl<'a> Reader<'a> {
    /// A field table: its length in four octets, then its fields, all of them validated.
    ///
    /// # Errors
    /// Where a field is malformed, of an unknown type, or nested deeper than [`FIELD_TABLE_DEPTH_MAX`].
    #[inline]
    pub fn table(&mut self) -> Result<TableRef<'a>, SyntaxFault> {
        let octets = self.long_string()?;
        if octets.is_empty() { Ok(TableRef::EMPTY) } else { TableRef::new(octets) }
    }
}

impl ValueRef<'_> {
    /// A copy that owns its memory.
    pub fn to_owned_value(&self) -> FieldValue {
        match *self {
            Self::Bool(value) => FieldValue::Bool(value),
            Self::I8(value) => FieldValue::I8(value),
            Self::U8(value) => FieldValue::U8(value),
            Self::I16(value) => FieldValue::I16(value),
            Self::U16(value) => FieldValue::U16(value),
            Self::I32(value) => FieldValue::I32(value),
            Self::U32(value) => FieldValue::U32(value),
            Self::I64(value) => FieldValue::I64(value),
            Self::U64(value) => FieldValue::U64(value),
            Self::F32(value) => FieldValue::F32(value),
            Self::F64(value) => FieldValue::F64(value),
            Self::Decimal { scale, value } => FieldValue::Decimal { scale, value },
            Self::LongString(octets) => FieldValue::LongString(octets.to_vec()),
            Self::Array(array) => FieldValue::Array(array.iter().map(|value| value.to_owned_value()).collect()),
            Self::Timestamp(seconds) => FieldValue::Timestamp(seconds),
            Self::Table(table) => FieldValue::Table(table.to_owned_table()),
            Self::Void => FieldValue::Void,
            Self::Bytes(octets) => FieldValue::Bytes(octets.to_vec()),
        }
    }
}

const UNKNOWN_TYPE: SyntaxFault = SyntaxFault("unknown field type in a table");
const TOO_DEEP: SyntaxFault = SyntaxFault("tables and arrays are nested too deeply");

/// Reads one value of a validated table: its type, then the value itself; the inside of tables and arrays is not looked at.
#[inline]
fn value<'a>(reader: &mut Reader<'a>) -> Result<ValueRef<'a>, SyntaxFault> {
    Ok(match reader.octet()? {
        b't' => ValueRef::Bool(reader.octet()? != 0),
        b'b' => ValueRef::I8(reader.octet()?.cast_signed()),
        b'B' => ValueRef::U8(reader.octet()?),
        b's' => ValueRef::I16(reader.short()?.cast_signed()),
        b'u' => ValueRef::U16(reader.short()?),
        b'I' => ValueRef::I32(reader.long()?.cast_signed()),
        b'i' => ValueRef::U32(reader.long()?),
        b'l' => ValueRef::I64(reader.longlong()?.cast_signed()),
        b'L' => ValueRef::U64(reader.longlong()?),
        b'f' => ValueRef::F32(f32::from_bits(reader.long()?)),
        b'd' => ValueRef::F64(f64::from_bits(reader.longlong()?)),
        b'D' => ValueRef::Decimal { scale: reader.octet()?, value: reader.long()? },
        b'S' => ValueRef::LongString(reader.long_string()?),
        b'A' => ValueRef::Array(ArrayRef { octets: reader.long_string()? }),
        b'T' => ValueRef::Timestamp(reader.longlong()?),
        b'F' => ValueRef::Table(TableRef { octets: reader.long_string()? }),
        b'V' => ValueRef::Void,
        b'x' => ValueRef::Bytes(reader.long_string()?),
        _ => return Err(UNKNOWN_TYPE),
    })
}

/// A table or an array whose inside is being walked through.
#[derive(Clone, Copy)]
struct Level {
    /// Where it ends, counted from the front of the outermost table.
    end: usize,
    /// A table, whose values have names, or else an array.
    is_table: bool,
}

/// Walks through all levels of a table once, without recursion and without allocating.
fn validate(octets: &[u8]) -> Result<(), SyntaxFault> {
    let mut level = Level { end: octets.len(), is_table: true };
    let mut surrounding = [level; FIELD_TABLE_DEPTH_MAX - 1];
    let mut depth = 0;
    let mut position = 0;
    loop {
        let mut reader = Reader::new(&octets[position..level.end]);
        let nested = next_nested(&mut reader, level.is_table)?;
        position = level.end - reader.remaining().len();
        if let Some((is_table, octet_count)) = nested {
            *surrounding.get_mut(depth).ok_or(TOO_DEEP)? = level;
            depth += 1;
            level = Level { end: position + octet_count, is_table };
        } else if depth > 0 {
            depth -= 1;
            level = surrounding[depth];
        } else {
            return Ok(());
        }
    }
}

/// Walks to the end of a level, or to the next table or array in it: whether that is a table, and how many octets it has.
fn next_nested(reader: &mut Reader<'_>, is_table: bool) -> Result<Option<(bool, usize)>, SyntaxFault> {
    while !reader.is_empty() {
        if is_table {
            reader.short_string()?;
        }
        let fixed_octets = match reader.octet()? {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            b'S' | b'x' => {
                reader.long_string()?;
                0
            }
            kind @ (b'F' | b'A') => {
                let octet_count = Reader::long_string(&mut reader.clone())?.len();
                reader.long()?;
                return Ok(Some((kind == b'F', octet_count)));
            }
            _ => return Err(UNKNOWN_TYPE),
        };
        reader.take(fixed_octets)?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::{FieldValue, Reader, SyntaxFault, TOO_DEEP, TableRef, UNKNOWN_TYPE, ValueRef};
    use crate::limits::FIELD_TABLE_DEPTH_MAX;
    use crate::protocol::field_value::arbitrary;
    use crate::protocol::wire::TRUNCATED;
    use proptest::prelude::*;

    /// A table within `depth` - 1 others, or an array within them, without the outermost length.
    fn nested(depth: usize, letter: u8) -> Vec<u8> {
        let mut octets: Vec<u8> = Vec::new();
        for level in 1..depth {
            let inside_is_table = letter == b'F' || level == depth - 1;
            let mut outer: Vec<u8> = if inside_is_table { vec![1, b'n', letter] } else { vec![letter] };
            outer.extend(u32::try_from(octets.len()).unwrap().to_be_bytes());
            outer.extend(&octets);
            octets = outer;
        }
        octets
    }

    fn check(octets: &[u8], expected: Result<(), SyntaxFault>) {
        assert_eq!(TableRef::new(octets).map(|_| ()), expected, "{octets:?}");
    }

    /// Goal: the depth has a limit, and the deepest input is refused without deep recursion.
    /// Method: tables and arrays on both sides of the limit, and 10,000 levels, on a small stack.
    #[test]
    fn depth_has_a_limit() {
        let small_stack = std::thread::Builder::new().stack_size(64 << 10);
        let run = small_stack.spawn(|| {
            for letter in [b'F', b'A'] {
                check(&nested(FIELD_TABLE_DEPTH_MAX, letter), Ok(()));
                check(&nested(FIELD_TABLE_DEPTH_MAX + 1, letter), Err(TOO_DEEP));
                check(&nested(10_000, letter), Err(TOO_DEEP));
            }
        });
        run.unwrap().join().unwrap();
    }

    /// Goal: levels are counted by depth, not by number.
    /// Method: 1,000 empty tables beside each other.
    #[test]
    fn tables_beside_each_other_are_not_deep() {
        check(&[1, b'n', b'F', 0, 0, 0, 0].repeat(1000), Ok(()));
    }

    /// Goal: exactly RabbitMQ's types are taken, each with its own length.
    /// Method: every letter with 8 octets behind it, in a table; the known ones also one octet short.
    #[test]
    fn letters_are_those_of_rabbitmq() {
        let fixed = [(b"V", 0), (b"t", 1), (b"b", 1), (b"B", 1), (b"s", 2), (b"u", 2), (b"I", 4), (b"i", 4), (b"f", 4)];
        let wide = [(b"D", 5), (b"l", 8), (b"L", 8), (b"d", 8), (b"T", 8)];
        for letter in 0..=u8::MAX {
            let mut octets = vec![1, b'n', letter];
            if let Some((_, size)) = fixed.iter().chain(&wide).find(|(known, _)| known[0] == letter) {
                octets.resize(octets.len() + size, 0);
                check(&octets, Ok(()));
                octets.pop();
                check(&octets, Err(TRUNCATED));
            } else if b"SxAF".contains(&letter) {
                octets.extend([0; 4]);
                check(&octets, Ok(()));
                *octets.last_mut().unwrap() = 1;
                check(&octets, Err(TRUNCATED));
            } else {
                octets.resize(octets.len() + 8, 0);
                check(&octets, Err(UNKNOWN_TYPE));
            }
        }
    }

    /// Goal: what is nested may not reach beyond what surrounds it.
    /// Method: an array whose length is one octet more than its table has left, though octets follow the table.
    #[test]
    fn nested_lengths_stay_within() {
        let inner = [1, b'a', b'A', 0, 0, 0, 2, b'V'];
        let mut octets = vec![1, b't', b'F', 0, 0, 0, 8];
        octets.extend(inner);
        octets.extend([1, b'v', b'V']);
        check(&octets, Err(TRUNCATED));
        octets[13] = 1;
        check(&octets, Ok(()));
    }

    /// Goal: fields are found by name, the first of several, in the wire's order.
    /// Method: a table written by hand.
    #[test]
    fn fields_are_found_by_name() {
        let octets = b"\x01at\x02\x01bS\x00\x00\x00\x02hi\x01at\x00";
        let table = TableRef::new(octets).unwrap();
        assert_eq!(table.get(b"a"), Some(ValueRef::Bool(true)));
        assert_eq!(table.get(b"b"), Some(ValueRef::LongString(b"hi")));
        assert_eq!(table.get(b"c"), None);
        assert_eq!(table.iter().map(|(name, _)| name).collect::<Vec<_>>(), [b"a", b"b", b"a"]);
    }

    proptest! {
        /// Goal: every table returns from the wire as it was, and each type is kept.
        /// Method: random tables of all types, nested.
        #[test]
        fn tables_return(table in arbitrary::table()) {
            let mut octets = Vec::new();
            table.encode(&mut octets);
            let mut reader = Reader::new(&octets);
            let decoded = reader.table().unwrap();
            prop_assert!(reader.is_empty());
            prop_assert_eq!(decoded.octets(), &octets[4..]);
            let owned = decoded.to_owned_table();
            // Compared as octets: a NaN is not equal to itself.
            prop_assert_eq!(owned.to_octets(), decoded.octets());
            prop_assert_eq!(format!("{owned:?}"), format!("{table:?}"));
        }

        /// Goal: a table that was cut anywhere is either a fault or a shorter table, never a panic.
        /// Method: random tables, cut at a random place; then with a random octet changed.
        #[test]
        fn damaged_tables_do_no_harm(table in arbitrary::table(), place: prop::sample::Index, octet: u8) {
            let mut octets = table.to_octets();
            if octets.is_empty() {
                return Ok(());
            }
            let place = place.index(octets.len());
            let _ = TableRef::new(&octets[..place]).map(|table| table.to_owned_table());
            octets[place] = octet;
            if let Ok(damaged) = TableRef::new(&octets) {
                prop_assert_eq!(damaged.to_owned_table().to_octets().len(), octets.len());
            }
        }
    }

    /// Goal: any octet but 0 is true, as in RabbitMQ.
    /// Method: 0, 1 and 255.
    #[test]
    fn booleans_are_true_unless_zero() {
        for (octet, expected) in [(0, false), (1, true), (255, true)] {
            let octets = [1, b'n', b't', octet];
            let owned = TableRef::new(&octets).unwrap().to_owned_table();
            assert_eq!(owned.get("n"), Some(&FieldValue::Bool(expected)));
        }
    }
}
