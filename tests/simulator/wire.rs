//! A connection between a client and a shard: two runs of octets, either side of which may go away.

/// See the module's documentation.
#[derive(Default)]
pub struct Wire {
    /// Which client.
    pub client: usize,
    pub to_broker: Vec<u8>,
    pub to_client: Vec<u8>,
    /// How much may wait for the client before the broker's socket is full, in octets.
    pub room: usize,
    /// Octets that the broker has handled.
    pub used: u64,
    pub client_is_gone: bool,
    pub broker_is_gone: bool,
}

/// How much so many octets tell of the world's not being at rest: a heartbeat alone does not.
pub fn activity(octets: usize) -> u64 {
    if octets == lepus::protocol::frame::HEARTBEAT_FRAME.len() { 0 } else { octets as u64 }
}

impl Wire {
    /// Writes as much as fits; returns how much that was.
    pub fn write(&mut self, slices: &[std::io::IoSlice<'_>], most: usize) -> usize {
        let room = self.room.saturating_sub(self.to_client.len()).min(most);
        let before = self.to_client.len();
        for slice in slices {
            let left = room - (self.to_client.len() - before);
            self.to_client.extend_from_slice(&slice[..slice.len().min(left)]);
        }
        self.to_client.len() - before
    }
}
