//! What a connection still has to write: one dense run of octets, with large bodies referenced in between.
//!
//! Knows no sockets: a driver takes the slices, writes what it can and says how much that was.

use bytes::Bytes;
use std::{collections::VecDeque, io::IoSlice};

/// Capacity that an empty buffer may keep between turns, in octets.
const KEPT_OCTETS_MAX: usize = 4096;

/// Octets to be written, in order.
#[derive(Debug, Default)]
pub struct OutputBuffer {
    octets: Vec<u8>,
    /// How many of `octets` were written already.
    sent: usize,
    /// Bodies that belong before the octet at the given index of `octets`.
    shared: VecDeque<(usize, Bytes)>,
    shared_octets: usize,
}

impl OutputBuffer {
    /// The run to append encoded frames to.
    #[inline]
    pub fn octets_mut(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }

    /// Appends octets by reference.
    pub fn push_shared(&mut self, body: Bytes) {
        self.shared_octets += body.len();
        self.shared.push_back((self.octets.len(), body));
    }

    /// How many octets wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.octets.len() - self.sent + self.shared_octets
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory that is really held, in octets.
    pub fn octets_held(&self) -> usize {
        self.octets.capacity() + self.shared_octets
    }

    /// The only run, where no body is referenced: the common case.
    #[inline]
    pub fn single(&self) -> Option<&[u8]> {
        self.shared.is_empty().then(|| &self.octets[self.sent..])
    }

    /// The runs in order, as many as fit into `most` slices.
    pub fn slices(&self, most: usize) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(most.min(2 * self.shared.len() + 1));
        let mut at = self.sent;
        for (before, body) in &self.shared {
            if slices.len() + 2 > most {
                return slices;
            }
            if *before > at {
                slices.push(IoSlice::new(&self.octets[at..*before]));
                at = *before;
            }
            slices.push(IoSlice::new(body));
        }
        if at < self.octets.len() && slices.len() < most {
            slices.push(IoSlice::new(&self.octets[at..]));
        }
        slices
    }

    /// The first run that is not empty.
    pub fn first(&self) -> &[u8] {
        match self.shared.front() {
            Some((before, body)) if *before <= self.sent => body,
            Some((before, _)) => &self.octets[self.sent..*before],
            None => &self.octets[self.sent..],
        }
    }

    /// Forgets the first `count` octets: they were written.
    pub fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len(), "more was written than waits");
        while let Some((before, body)) = self.shared.front_mut() {
            let run = *before - self.sent;
            if count < run {
                self.sent += count;
                return;
            }
            self.sent = *before;
            count -= run;
            if count < body.len() {
                self.shared_octets -= count;
                bytes::Buf::advance(body, count);
                return;
            }
            count -= body.len();
            self.shared_octets -= body.len();
            self.shared.pop_front();
        }
        self.sent += count;
        if self.sent == self.octets.len() {
            self.octets.clear();
            self.sent = 0;
        } else if self.sent > self.octets.len() / 2 {
            self.octets.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives memory back that an idle connection does not need.
    pub fn shrink_if_empty(&mut self) {
        if self.is_empty() && self.octets.capacity() > KEPT_OCTETS_MAX {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(output: &OutputBuffer) -> Vec<u8> {
        output.slices(64).iter().flat_map(|slice| slice.to_vec()).collect()
    }

    /// Goal: whatever the sizes of the writes, the octets leave in order, once each.
    /// Method: mix runs and referenced bodies, take them off in steps of every size.
    #[test]
    fn octets_leave_in_order() {
        for step in 1..40 {
            let mut output = OutputBuffer::default();
            output.octets_mut().extend_from_slice(b"abc");
            output.push_shared(Bytes::from_static(b"DEFGH"));
            output.push_shared(Bytes::from_static(b"IJ"));
            output.octets_mut().extend_from_slice(b"klmno");
            output.push_shared(Bytes::from_static(b"P"));
            let whole = collected(&output);
            assert_eq!(whole, b"abcDEFGHIJklmnoP");
            let mut seen = Vec::new();
            while !output.is_empty() {
                let count = step.min(output.first().len());
                seen.extend_from_slice(&output.first()[..count]);
                output.advance(count);
                assert_eq!(collected(&output), whole[seen.len()..]);
            }
            assert_eq!(seen, whole);
        }
    }
}
