//! Large bodies: reference-counted octets that are not copied into blocks, each under a number that its record holds.

use bytes::Bytes;

/// The large bodies of one queue. Numbers are reused.
#[derive(Default)]
pub(super) struct Bodies {
    slots: Vec<Bytes>,
    vacant: Vec<u32>,
    octets: u64,
}

impl Bodies {
    /// Keeps `body` and returns its number.
    pub fn add(&mut self, body: Bytes) -> u32 {
        self.octets += body.len() as u64;
        if let Some(number) = self.vacant.pop() {
            self.slots[number as usize] = body;
            return number;
        }
        let number = u32::try_from(self.slots.len()).expect("fewer than 2^32 large bodies fit into memory");
        self.slots.push(body);
        number
    }

    /// The body under `number`.
    #[inline]
    pub fn get(&self, number: u32) -> &Bytes {
        &self.slots[number as usize]
    }

    /// Lets go of the body under `number`.
    pub fn remove(&mut self, number: u32) {
        let body = std::mem::take(&mut self.slots[number as usize]);
        self.octets -= body.len() as u64;
        self.vacant.push(number);
        if self.vacant.len() == self.slots.len() {
            *self = Self::default();
        }
    }

    /// The memory held: the bodies and the table of them. Constant time.
    pub fn octets_held(&self) -> u64 {
        let table = self.slots.capacity() * size_of::<Bytes>() + self.vacant.capacity() * size_of::<u32>();
        self.octets + table as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a number leads to its own body, and nothing is held after the last one left.
    /// Method: add, remove and add again, ask for each; then remove all.
    #[test]
    fn numbers_are_reused_and_memory_is_given_back() {
        let mut bodies = Bodies::default();
        let first = bodies.add(Bytes::from_static(b"first"));
        let second = bodies.add(Bytes::from_static(b"second"));
        bodies.remove(first);
        let third = bodies.add(Bytes::from_static(b"third"));
        assert_eq!(third, first);
        assert_eq!(bodies.get(second), "second");
        assert_eq!(bodies.get(third), "third");
        bodies.remove(second);
        bodies.remove(third);
        assert_eq!(bodies.octets_held(), 0);
    }
}
