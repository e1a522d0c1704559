//! The headers exchange: bindings name headers and their values, and whether all or any of them must be there.
//!
//! Every binding is tried for every message, as in RabbitMQ. The headers are decoded once for all of them.

use super::binding::{Binding, BindingSet};
use crate::protocol::field_table::{FieldTable, FieldValue, TableRef, ValueRef, equivalent};
use smallvec::SmallVec;
use std::hash::Hash;
use std::sync::Arc;

/// The argument that says how a binding's headers are matched.
const MATCH_ARGUMENT: &[u8] = b"x-match";

/// How a binding's headers are matched (`x-match`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchMode {
    /// Every header of the binding must be there, but for those whose name begins with `x-`. Also where nothing is said.
    All,
    /// At least one must be there, of those whose name does not begin with `x-`.
    Any,
    /// Every one must be there.
    AllWithX,
    /// At least one must be there.
    AnyWithX,
}

impl MatchMode {
    /// The mode that a value of `x-match` names.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"all" => Some(Self::All),
            b"any" => Some(Self::Any),
            b"all-with-x" => Some(Self::AllWithX),
            b"any-with-x" => Some(Self::AnyWithX),
            _ => None,
        }
    }

    fn of(arguments: &FieldTable) -> Self {
        let value = arguments.0.iter().find(|(name, _)| name == MATCH_ARGUMENT).map(|(_, value)| value);
        match value {
            Some(FieldValue::LongString(name)) => Self::named(name).unwrap_or(Self::All),
            _ => Self::All,
        }
    }
}

/// The bindings of a headers exchange. The routing key tells bindings apart but messages nothing.
pub struct HeadersMatcher<D> {
    bindings: BindingSet<D>,
}

impl<D> Default for HeadersMatcher<D> {
    fn default() -> Self {
        Self { bindings: BindingSet::Empty }
    }
}

impl<D> Clone for HeadersMatcher<D> {
    fn clone(&self) -> Self {
        Self { bindings: self.bindings.clone() }
    }
}

/// A message's headers, decoded once.
type Headers<'h> = SmallVec<[(&'h [u8], ValueRef<'h>); 16]>;

impl<D> HeadersMatcher<D> {
    /// Hands all bindings that match a message with these headers to `found`.
    pub fn for_each_match<'t>(&'t self, headers: TableRef<'_>, mut found: impl FnMut(&'t Arc<Binding<D>>)) {
        let headers: Headers<'_> = headers.iter().collect();
        self.bindings.for_each(&mut |binding| {
            if is_match(binding.arguments(), &headers) {
                found(binding);
            }
        });
    }

    /// Hands all bindings to `found`.
    pub fn for_each_binding<'t>(&'t self, found: &mut impl FnMut(&'t Arc<Binding<D>>)) {
        self.bindings.for_each(found);
    }

    /// How many bindings.
    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }
}

impl<D: Eq + Hash> HeadersMatcher<D> {
    /// The binding that says the same as `binding`.
    pub fn get(&self, binding: &Binding<D>) -> Option<&Arc<Binding<D>>> {
        self.bindings.get(binding)
    }

    /// Adds a binding. Returns false, changing nothing, where the same is there.
    pub fn insert(&mut self, binding: Arc<Binding<D>>) -> bool {
        self.bindings.insert(binding)
    }

    /// Takes out the one that says the same as `binding`.
    pub fn remove(&mut self, binding: &Binding<D>) -> Option<Arc<Binding<D>>> {
        self.bindings.remove(binding)
    }
}

fn is_match(arguments: &FieldTable, headers: &Headers<'_>) -> bool {
    let mode = MatchMode::of(arguments);
    let mut wanted = arguments.0.iter().filter(|(name, _)| match mode {
        MatchMode::All | MatchMode::Any => !name.starts_with(b"x-"),
        MatchMode::AllWithX | MatchMode::AnyWithX => name != MATCH_ARGUMENT,
    });
    let is_there = |(name, value): &(Vec<u8>, FieldValue)| {
        let header = headers.iter().find(|(its_name, _)| its_name == name);
        header.is_some_and(|(_, its_value)| *value == FieldValue::Void || is_same_value(its_value, value))
    };
    match mode {
        MatchMode::All | MatchMode::AllWithX => wanted.all(is_there),
        MatchMode::Any | MatchMode::AnyWithX => wanted.any(is_there),
    }
}

/// Whether a header has the value that a binding asks for: by value, whatever the width of an integer or a float, and
/// whether octets are a string or not. (RabbitMQ compares timestamps in different units, so that none is ever the same; here they compare.)
fn is_same_value(header: &ValueRef<'_>, wanted: &FieldValue) -> bool {
    match (header, wanted) {
        (
            ValueRef::LongString(octets) | ValueRef::Bytes(octets),
            FieldValue::LongString(wanted) | FieldValue::Bytes(wanted),
        ) => octets == wanted,
        _ => equivalent(&header.to_owned_value(), wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(fields: &[(&str, FieldValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in fields {
            table.insert(name, value.clone());
        }
        table
    }

    fn check(arguments: &[(&str, FieldValue)], headers: &[(&str, FieldValue)], expected: bool) {
        let mut matcher = HeadersMatcher::default();
        assert!(matcher.insert(Arc::new(Binding::new(7, &[], table(arguments), 0))));
        let octets = table(headers).to_octets();
        let mut found = Vec::new();
        matcher.for_each_match(TableRef::new(&octets).unwrap(), |binding| found.push(binding.destination));
        assert_eq!(found, if expected { vec![7] } else { vec![] }, "{arguments:?} with {headers:?}");
    }

    /// Goal: the four modes treat present, other, missing and `x-` headers as RabbitMQ does.
    /// Method: one binding against headers on both sides of each rule.
    #[test]
    fn modes_match_as_in_rabbitmq() {
        let mode = |name: &str| ("x-match", FieldValue::LongString(name.into()));
        let (a1, a2, b1) = (("a", FieldValue::I32(1)), ("a", FieldValue::I32(2)), ("b", FieldValue::I32(1)));
        let (x1, x2) = (("x-a", FieldValue::Bool(true)), ("x-a", FieldValue::Bool(false)));

        check(&[], &[], true);
        check(&[], std::slice::from_ref(&a1), true);
        check(&[mode("any")], std::slice::from_ref(&a1), false);
        check(&[mode("any-with-x")], std::slice::from_ref(&a1), false);

        for all in [vec![], vec![mode("all")]] {
            let arguments: Vec<_> = all.into_iter().chain([a1.clone(), b1.clone(), x1.clone()]).collect();
            check(&arguments, &[a1.clone(), b1.clone()], true);
            check(&arguments, &[a1.clone(), b1.clone(), x2.clone()], true);
            check(&arguments, std::slice::from_ref(&a1), false);
            check(&arguments, &[a2.clone(), b1.clone()], false);
        }
        let arguments = [mode("any"), a1.clone(), b1.clone(), x1.clone()];
        check(&arguments, &[a2.clone(), b1.clone()], true);
        check(&arguments, std::slice::from_ref(&a2), false);
        check(&arguments, std::slice::from_ref(&x1), false);
        let arguments = [mode("all-with-x"), a1.clone(), x1.clone()];
        check(&arguments, &[a1.clone(), x1.clone()], true);
        check(&arguments, &[a1.clone(), x2.clone()], false);
        let arguments = [mode("any-with-x"), a1.clone(), x1.clone()];
        check(&arguments, &[a2.clone(), x1], true);
        check(&arguments, &[a2, x2], false);
    }

    /// Goal: values compare by value, not by their type on the wire; a void asks for the name only.
    /// Method: equal and different values of related types.
    #[test]
    fn values_compare_by_value() {
        check(&[("a", FieldValue::I64(5))], &[("a", FieldValue::U8(5))], true);
        check(&[("a", FieldValue::I64(5))], &[("a", FieldValue::F64(5.0))], false);
        check(&[("a", FieldValue::F32(0.5))], &[("a", FieldValue::F64(0.5))], true);
        check(&[("a", FieldValue::LongString(b"v".into()))], &[("a", FieldValue::Bytes(b"v".into()))], true);
        check(&[("a", FieldValue::LongString(b"1".into()))], &[("a", FieldValue::I32(1))], false);
        check(&[("a", FieldValue::Void)], &[("a", FieldValue::I32(1))], true);
        check(&[("a", FieldValue::Void)], &[("b", FieldValue::I32(1))], false);
        check(&[("a", FieldValue::Timestamp(9))], &[("a", FieldValue::Timestamp(9))], true);
    }
}
