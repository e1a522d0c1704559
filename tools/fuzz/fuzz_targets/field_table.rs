//! Any octets are a table or are refused; a table returns to octets that are the same table.
#![no_main]

use lepus::protocol::field_table::{FieldTable, TableRef, equivalent};
use lepus::protocol::wire::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(table) = TableRef::new(input) else { return };
    let owned = table.to_owned_table();
    let mut octets = Vec::new();
    owned.encode(&mut octets);
    // Booleans other than 0 and 1 are the only octets that change.
    assert_eq!(octets.len(), input.len() + 4);
    let again = FieldTable::decode(&mut Reader::new(&octets)).expect("what was written can be read");
    assert_eq!(again.to_octets(), octets[4..]);
    for (name, value) in table {
        assert!(table.get(name).is_some());
        let value = value.to_owned_value();
        let _ = (value.as_i64(), value.as_str(), value.as_f64(), value.type_name());
        // A NaN within an array or a table is not equal to itself.
        assert!(equivalent(&value, &value) || ["array", "table"].contains(&value.type_name()));
    }
});
