//! Deliveries as they lie in what was read: where their parts are, found without decoding what is not needed.

use lepus::protocol::frame::{FRAME_END, FRAME_OVERHEAD_OCTETS};

/// A message that lies there whole, as nearly all small ones do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Where it came.
    pub channel: u16,
    /// Of `basic.deliver`.
    pub consumer_tag: &'a [u8],
    /// Of `basic.deliver`.
    pub delivery_tag: u64,
    /// Of `basic.deliver`.
    pub is_redelivered: bool,
    /// In one frame, and not empty.
    pub body: &'a [u8],
}

/// Reads a delivery of three frames at the front of `input`, without looking at its routing key and properties; `None` where
/// anything else is there, or not all of it.
#[inline]
pub fn peek_delivery(input: &[u8]) -> Option<(Delivery<'_>, usize)> {
    let (&[1, c0, c1, s0, s1, s2, s3, 0, 60, 0, 60, tag_octets], rest) = input.split_first_chunk()? else {
        return None;
    };
    let octets = usize::try_from(u32::from_be_bytes([s0, s1, s2, s3])).ok()?;
    let (consumer_tag, rest) = rest.split_at_checked(usize::from(tag_octets))?;
    let &[t0, t1, t2, t3, t4, t5, t6, t7, redelivered] = rest.first_chunk()?;
    let header = input.get(octets + 7..)?;
    let (&[FRAME_END, 2, _, _, h0, h1, h2, h3, 0, 60, _, _, b0, b1, b2, b3, b4, b5, b6, b7], _) =
        header.split_first_chunk()?
    else {
        return None;
    };
    let header_octets = usize::try_from(u32::from_be_bytes([h0, h1, h2, h3])).ok()?;
    let body_octets = usize::try_from(u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7])).ok()?;
    let body = header.get(header_octets + 8..)?;
    let (&[FRAME_END, 3, _, _, f0, f1, f2, f3], rest) = body.split_first_chunk()? else { return None };
    if usize::try_from(u32::from_be_bytes([f0, f1, f2, f3])).ok()? != body_octets
        || rest.get(body_octets) != Some(&FRAME_END)
    {
        return None;
    }
    let delivery = Delivery {
        channel: u16::from_be_bytes([c0, c1]),
        consumer_tag,
        delivery_tag: u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        is_redelivered: redelivered & 1 == 1,
        body: &rest[..body_octets],
    };
    Some((delivery, octets + header_octets + body_octets + 3 * FRAME_OVERHEAD_OCTETS))
}

/// Reads the front of `basic.deliver` without its last strings: consumer tag, delivery tag, redelivered.
#[inline]
pub fn peek_deliver(payload: &[u8]) -> Option<(&[u8], u64, bool)> {
    let arguments = payload.strip_prefix(&[0, 60, 0, 60])?;
    let (&tag_octets, rest) = arguments.split_first()?;
    let (consumer_tag, rest) = rest.split_at_checked(usize::from(tag_octets))?;
    let (delivery_tag, rest) = rest.split_first_chunk()?;
    Some((consumer_tag, u64::from_be_bytes(*delivery_tag), rest.first()? & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lepus::protocol::content::put_content;
    use lepus::protocol::method::{Method, basic};

    fn put_delivery(out: &mut Vec<u8>, deliver: basic::Deliver<'_>, properties: &[u8], body: &[u8], frame_max: usize) {
        Method::from(deliver).put(out, 7);
        put_content(out, 7, properties, body, frame_max);
    }

    /// Goal: the short way of reading a whole delivery agrees with the codec, and refuses every other beginning.
    #[test]
    fn peeking_at_whole_deliveries() {
        let deliver = basic::Deliver {
            consumer_tag: b"31",
            delivery_tag: 0x0102_0304_0506_0708,
            redelivered: true,
            exchange: b"exchange",
            routing_key: b"key",
        };
        for (properties, body_octets) in [(&[0, 0][..], 16), (&[0x10, 0, 2][..], 1), (&[0, 0][..], 5000)] {
            let body: Vec<u8> = (1..=255).cycle().take(body_octets).collect();
            let mut octets = Vec::new();
            put_delivery(&mut octets, deliver, properties, &body, 131_072);
            let whole = octets.len();
            octets.push(1);
            let (delivery, used) = peek_delivery(&octets).expect("it is whole");
            assert_eq!(
                (delivery.channel, delivery.consumer_tag, delivery.delivery_tag),
                (7, &b"31"[..], deliver.delivery_tag)
            );
            assert_eq!((delivery.is_redelivered, delivery.body, used), (true, &body[..], whole));
            for length in 0..whole {
                assert_eq!(peek_delivery(&octets[..length]), None, "{length} octets");
            }
        }
        let mut octets = Vec::new();
        put_delivery(&mut octets, deliver, &[0, 0], &[1; 5000], 4096);
        assert_eq!(peek_delivery(&octets), None, "two body frames");
        octets.clear();
        put_delivery(&mut octets, deliver, &[0, 0], &[], 4096);
        assert_eq!(peek_delivery(&octets), None, "no body");
    }

    /// Goal: the short way of reading a delivery agrees with the codec, and refuses what is no delivery.
    #[test]
    fn peeking_agrees_with_the_codec() {
        for redelivered in [false, true] {
            let deliver = basic::Deliver {
                consumer_tag: b"317",
                delivery_tag: 0x0102_0304_0506_0708,
                redelivered,
                exchange: b"e",
                routing_key: b"k",
            };
            let mut payload = Vec::new();
            Method::BasicDeliver(deliver).encode(&mut payload);
            assert_eq!(peek_deliver(&payload), Some((&b"317"[..], 0x0102_0304_0506_0708, redelivered)));
            for length in 0..payload.len() - 4 {
                assert!(peek_deliver(&payload[..length]).is_none(), "{length} octets");
            }
            payload[3] = 61;
            assert!(peek_deliver(&payload).is_none());
        }
    }
}
