//! Verifies credentials. Hashes that take long by intent are verified elsewhere, and remembered once they were found right.

use crate::definitions::{Definitions, Name, PasswordHash};
use ahash::{AHashMap, RandomState};

/// What was found right before.
#[derive(Default)]
pub struct Logins {
    /// Slow hashes: of each user the hash and a keyed digest of the password.
    verified: AHashMap<Name, (PasswordHash, u64)>,
    digests: RandomState,
}

/// See [`Logins::verify`].
pub enum Verification {
    /// Whether the credentials are right.
    Done(bool),
    /// To be verified against this, where it may take long.
    Slow(PasswordHash),
}

impl Logins {
    /// Whether this is the user's password, as far as that can be told at once.
    pub fn verify(&self, definitions: &Definitions, user: &Name, password: &[u8]) -> Verification {
        let Some(known) = definitions.user(user) else { return Verification::Done(false) };
        let hash = &known.password_hash;
        if !hash.is_slow() {
            return Verification::Done(hash.verify(password));
        }
        match self.verified.get(user) {
            Some((same, digest)) if same == hash && *digest == self.digests.hash_one(password) => {
                Verification::Done(true)
            }
            _ => Verification::Slow(hash.clone()),
        }
    }

    /// Credentials were verified elsewhere, and are right: the next login with them is quick.
    pub fn remember(&mut self, user: Name, password: &[u8], hash: PasswordHash) {
        let digest = self.digests.hash_one(password);
        self.verified.insert(user, (hash, digest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::{Change, Registry};

    /// Goal: what was right before is right at once, and only that: not another password, not after a change of the password.
    /// Method: a user with a slow hash, before and after it was remembered, and with a new hash of the same password.
    #[test]
    fn right_credentials_are_remembered() {
        let mut registry = Registry::new();
        let put = |registry: &mut Registry, password_hash: PasswordHash| {
            registry.apply(Change::PutUser { name: "ann".into(), password_hash, tags: Vec::new() }).unwrap();
            registry.snapshot()
        };
        let is_slow = |verification| matches!(verification, Verification::Slow(_));
        let hash = PasswordHash::new(b"carrots");
        let definitions = put(&mut registry, hash.clone());
        let (mut logins, ann) = (Logins::default(), Name::from("ann"));
        assert!(is_slow(logins.verify(&definitions, &ann, b"carrots")));
        logins.remember(ann.clone(), b"carrots", hash);
        assert!(matches!(logins.verify(&definitions, &ann, b"carrots"), Verification::Done(true)));
        assert!(is_slow(logins.verify(&definitions, &ann, b"turnips")));
        let definitions = put(&mut registry, PasswordHash::new(b"carrots"));
        assert!(is_slow(logins.verify(&definitions, &ann, b"carrots")));
        let guest = Name::from("guest");
        for (password, expected) in [(&b"guest"[..], true), (b"", false)] {
            let found = logins.verify(&definitions, &guest, password);
            assert!(matches!(found, Verification::Done(is_right) if is_right == expected));
        }
        assert!(matches!(logins.verify(&definitions, &"nobody".into(), b""), Verification::Done(false)));
    }
}
