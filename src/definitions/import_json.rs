//! JSON values of which one knows where in the document they stand, so that an error can say so.

use crate::protocol::field_table::{FieldTable, FieldValue};
use serde_json::{Map, Value};
use std::fmt;

/// Where in a document: `queues[3].arguments`.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("the document"),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: String,
    pub(super) reason: String,
}

impl Fault {
    pub(super) fn new(place: Place<'_>, reason: impl fmt::Display) -> Self {
        Self { place: place.to_string(), reason: reason.to_string() }
    }
}

/// An object and its place.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) place: Place<'a>,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    pub(super) fn new(place: Place<'a>, value: &'a Value) -> Result<Self, Fault> {
        match value {
            Value::Object(fields) => Ok(Self { place, fields }),
            other => Err(Fault::new(place, format_args!("expected an object, found {}", kind(other)))),
        }
    }

    /// A field that is there and is not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn fault(&self, name: &str, reason: impl fmt::Display) -> Fault {
        Fault::new(Place::Field(&self.place, name), reason)
    }

    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.fault(name, format_args!("expected a string, found {}", kind(other)))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, Fault> {
        self.optional_text(name)?.ok_or_else(|| self.fault(name, "is missing"))
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Fault> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.fault(name, format_args!("expected true or false, found {}", kind(other)))),
        }
    }

    /// A list that may be missing.
    pub(super) fn list(&self, name: &str) -> Result<&'a [Value], Fault> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(self.fault(name, format_args!("expected a list, found {}", kind(other)))),
        }
    }

    /// A table of arguments that may be missing. RabbitMQ writes an empty one as an empty list, too.
    pub(super) fn table(&self, name: &str) -> Result<FieldTable, Fault> {
        match self.get(name) {
            None => Ok(FieldTable::default()),
            Some(Value::Array(values)) if values.is_empty() => Ok(FieldTable::default()),
            Some(value) => table(Object::new(Place::Field(&self.place, name), value)?),
        }
    }
}

/// As RabbitMQ turns JSON into AMQP: integers become longs, other numbers doubles, strings long strings.
fn table(object: Object<'_>) -> Result<FieldTable, Fault> {
    let mut table = FieldTable::default();
    for (name, value) in object.fields {
        let place = Place::Field(&object.place, name);
        if name.len() > crate::limits::SHORT_STRING_OCTETS_MAX {
            return Err(Fault::new(place, "the name has more than 255 octets"));
        }
        table.insert(name, field_value(place, value)?);
    }
    Ok(table)
}

fn field_value(place: Place<'_>, value: &Value) -> Result<FieldValue, Fault> {
    Ok(match value {
        Value::Null => return Err(Fault::new(place, "null is no value of an argument")),
        Value::Bool(value) => FieldValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => FieldValue::I64(integer),
            (None, Some(float)) if number.is_f64() => FieldValue::F64(float),
            _ => return Err(Fault::new(place, format_args!("{number} is too large"))),
        },
        Value::String(text) => FieldValue::LongString(text.as_bytes().to_vec()),
        Value::Array(values) => {
            let values = values.iter().enumerate();
            let values = values.map(|(index, value)| field_value(Place::Index(&place, index), value));
            FieldValue::Array(values.collect::<Result<_, _>>()?)
        }
        Value::Object(_) => FieldValue::Table(table(Object::new(place, value)?)?),
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
