//! The words of routing keys and patterns.

/// What is left of a key: nothing, or a word and what is behind its dot.
pub(super) type Rest<'k> = Option<&'k [u8]>;

/// All of a key. The empty one has no word.
#[inline]
pub(super) fn all_of(key: &[u8]) -> Rest<'_> {
    (!key.is_empty()).then_some(key)
}

/// The first word, and what is left.
#[inline]
pub(super) fn split_word(rest: &[u8]) -> (&[u8], Rest<'_>) {
    match rest.iter().position(|octet| *octet == b'.') {
        Some(dot) => (&rest[..dot], Some(&rest[dot + 1..])),
        None => (rest, None),
    }
}

/// Where a word starts, as it is kept.
pub(super) fn octet_of(start: usize) -> u8 {
    u8::try_from(start).expect("a routing key is at most 255 octets")
}

/// Whether a pattern's words match a key's. The last `#` that was passed takes one word more wherever the rest does not fit; that
/// earlier ones need not is what makes this quick.
pub(super) fn is_match(pattern: Rest<'_>, key: Rest<'_>) -> bool {
    let (mut pattern, mut key) = (pattern, key);
    let mut last_any_words: Option<(Rest<'_>, Rest<'_>)> = None;
    loop {
        match (pattern.map(split_word), key.map(split_word)) {
            (None, None) | (Some((b"#", None)), _) => return true,
            (Some((b"#", behind)), _) => {
                last_any_words = Some((behind, key));
                pattern = behind;
            }
            (Some((wanted, behind)), Some((word, further))) if wanted == b"*" || wanted == word => {
                (pattern, key) = (behind, further);
            }
            _ => {
                let Some((behind, Some(words))) = last_any_words else { return false };
                (pattern, key) = (behind, split_word(words).1);
                last_any_words = Some((pattern, key));
            }
        }
    }
}

/// A word, without an allocation where it is short.
#[derive(Clone)]
pub(super) enum Word {
    Short { len: u8, octets: [u8; Self::SHORT_OCTETS_MAX] },
    Long(Box<[u8]>),
}

impl Word {
    const SHORT_OCTETS_MAX: usize = 22;

    pub(super) fn new(word: &[u8]) -> Self {
        let mut octets = [0; Self::SHORT_OCTETS_MAX];
        match (octets.get_mut(..word.len()), u8::try_from(word.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(word);
                Self::Short { len, octets }
            }
            _ => Self::Long(word.into()),
        }
    }

    #[inline]
    pub(super) fn octets(&self) -> &[u8] {
        match self {
            Self::Short { len, octets } => &octets[..usize::from(*len)],
            Self::Long(octets) => octets,
        }
    }
}

const _: () = assert!(size_of::<Word>() == 24);
