//! The body of one message as it comes, in one frame or several: its stamp, and whether its checksum is right.

use crate::engine::stamp::{STAMP_OCTETS, Stamp, rest_checksum};

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message of some producer, whole.
    Message(Stamp),
    /// None that came from here, or not as it was sent.
    Corrupted,
}

/// The message that is being received.
#[derive(Default)]
pub struct Receiving {
    octets_left: u64,
    head: [u8; STAMP_OCTETS],
    head_octets: usize,
    rest: crc32fast::Hasher,
    has_begun: bool,
    /// All of it, where that is wanted.
    pub body: Vec<u8>,
    keeps_body: bool,
}

impl Receiving {
    /// Nothing has come. `keeps_body`: bodies are wanted.
    pub fn new(keeps_body: bool) -> Self {
        Self { keeps_body, ..Self::default() }
    }

    /// Its header has come. Returns whether the message is whole, as it has no body: then it is none of ours.
    #[inline]
    pub fn begin(&mut self, body_octets: u64) -> bool {
        self.octets_left = body_octets;
        self.has_begun = false;
        self.body.clear();
        body_octets == 0
    }

    /// Some of its body has come; `Some` where that was the last of it.
    #[inline]
    pub fn push(&mut self, part: &[u8], now: u64) -> Option<Received> {
        if self.keeps_body {
            self.body.extend_from_slice(part);
        }
        if !self.has_begun && part.len() as u64 == self.octets_left {
            self.octets_left = 0;
            return Some(Self::received_whole(part, now));
        }
        self.push_part(part, now)
    }

    /// A body that is there whole.
    #[inline]
    pub fn received_whole(body: &[u8], now: u64) -> Received {
        Self::received(body, now, rest_checksum)
    }

    #[inline]
    fn received(front: &[u8], now: u64, checksum: impl FnOnce(&[u8]) -> u32) -> Received {
        match Stamp::read(front, now) {
            Some(read) => match read.rest_checksum {
                Some(expected) if expected != checksum(&front[STAMP_OCTETS..]) => Received::Corrupted,
                _ => Received::Message(read.stamp),
            },
            None => Received::Corrupted,
        }
    }

    #[cold]
    fn push_part(&mut self, part: &[u8], now: u64) -> Option<Received> {
        if !self.has_begun {
            self.has_begun = true;
            self.head_octets = 0;
            self.rest = crc32fast::Hasher::new();
        }
        let (front, rest) = part.split_at(part.len().min(STAMP_OCTETS - self.head_octets));
        self.head[self.head_octets..self.head_octets + front.len()].copy_from_slice(front);
        self.head_octets += front.len();
        self.rest.update(rest);
        self.octets_left = self.octets_left.saturating_sub(part.len() as u64);
        if self.octets_left > 0 {
            return None;
        }
        let checksum = self.rest.clone().finalize() & 0x00FF_FFFF;
        Some(Self::received(&self.head[..self.head_octets], now, |_| checksum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a body is received alike however it is cut, and a changed octet shows.
    #[test]
    fn bodies_in_parts() {
        for octets in [16, 17, 40, 1000] {
            let mut body: Vec<u8> = (0..=255).cycle().take(octets).collect();
            let stamp = Stamp { producer: 3, sequence: 9, intended: 6400, lag: 0 };
            let rest = rest_checksum(&body[STAMP_OCTETS..]);
            stamp.write(&mut body, rest);
            let check = |body: &[u8], cut: usize, expected: Received| {
                let mut receiving = Receiving::default();
                assert!(!receiving.begin(body.len() as u64));
                let mut found = None;
                for part in body.chunks(cut) {
                    assert_eq!(found, None, "whole before its end");
                    found = receiving.push(part, 6400);
                }
                assert_eq!(found, Some(expected), "{octets} octets, cut at {cut}");
            };
            for cut in [1, 7, 15, 16, 17, 999, 1000] {
                check(&body, cut, Received::Message(stamp));
                let mut other = body.clone();
                other[octets - 1] ^= 1;
                check(&other, cut, Received::Corrupted);
            }
        }
        assert!(Receiving::default().begin(0));
    }
}
