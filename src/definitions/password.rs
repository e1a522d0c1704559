//! What is kept of a password: a salted hash. The password itself is never kept.

use argon2::Argon2;
use argon2::password_hash::{PasswordHash as Phc, PasswordHasher, PasswordVerifier, SaltString};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256, Sha512};

const SALT_OCTETS: usize = 4;

/// A salted hash of a password. Shows nothing of itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    /// There is no password, and none is right.
    None,
    /// RabbitMQ's: four octets of salt, then the digest of salt and password.
    Sha256(Box<[u8]>),
    Sha512(Box<[u8]>),
    /// In the PHC string format.
    Argon2(Box<str>),
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash")
    }
}

impl PasswordHash {
    /// Of a user that cannot log in with a password.
    pub const NONE: Self = Self(Kind::None);

    /// Hashes a new password with argon2. Takes some milliseconds and some memory by intent: not on a shard's core.
    pub fn new(password: &[u8]) -> Self {
        let salt = SaltString::encode_b64(&random_octets::<16>()).expect("16 octets are a salt");
        let hash = Argon2::default().hash_password(password, &salt).expect("the parameters are argon2's own");
        Self(Kind::Argon2(hash.to_string().into()))
    }

    /// Hashes a password as RabbitMQ does. For passwords that everybody knows, such as guest's.
    pub fn salted_sha256(password: &[u8]) -> Self {
        let salt = random_octets::<SALT_OCTETS>();
        let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
        Self(Kind::Sha256([&salt[..], &digest].concat().into()))
    }

    /// Reads a `password_hash` of RabbitMQ's export; `algorithm` is its `hashing_algorithm`. An empty hash is a user
    /// without a password.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_rabbitmq(hash: &str, algorithm: &str) -> Result<Self, String> {
        if hash.is_empty() {
            return Ok(Self::NONE);
        }
        let (is_sha256, digest_octets) = match algorithm {
            "rabbit_password_hashing_sha256" => (true, 32),
            "rabbit_password_hashing_sha512" => (false, 64),
            _ => return Err(format!("the hashing algorithm '{algorithm}' is not supported")),
        };
        let octets = STANDARD.decode(hash).map_err(|error| format!("it is not base64: {error}"))?;
        let expected = SALT_OCTETS + digest_octets;
        if octets.len() != expected {
            return Err(format!("it has {} octets where {algorithm} has {expected}", octets.len()));
        }
        let hash = octets.into();
        Ok(Self(if is_sha256 { Kind::Sha256(hash) } else { Kind::Sha512(hash) }))
    }

    /// The name of the method, and what it made: for [`PasswordHash::from_parts`].
    pub fn parts(&self) -> (&'static str, &[u8]) {
        match &self.0 {
            Kind::None => ("none", &[]),
            Kind::Sha256(hash) => ("sha256", hash),
            Kind::Sha512(hash) => ("sha512", hash),
            Kind::Argon2(hash) => ("argon2", hash.as_bytes()),
        }
    }

    /// What [`PasswordHash::parts`] gave.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_parts(method: &str, hash: &[u8]) -> Result<Self, String> {
        let of_length = |digest_octets: usize| {
            let expected = SALT_OCTETS + digest_octets;
            let wrong = || format!("the {method} hash has {} octets, not {expected}", hash.len());
            if hash.len() == expected { Ok(hash.into()) } else { Err(wrong()) }
        };
        Ok(Self(match method {
            "none" => Kind::None,
            "sha256" => Kind::Sha256(of_length(32)?),
            "sha512" => Kind::Sha512(of_length(64)?),
            "argon2" => {
                let text = std::str::from_utf8(hash).map_err(|_| "the argon2 hash is not text".to_owned())?;
                Phc::new(text).map_err(|error| format!("the argon2 hash is none: {error}"))?;
                Kind::Argon2(text.into())
            }
            other => return Err(format!("the hashing method '{other}' is not known")),
        }))
    }

    /// Whether this is the password. Takes milliseconds where it was hashed with argon2.
    pub fn verify(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kind::None => false,
            Kind::Sha256(hash) => {
                let (salt, digest) = hash.split_at(SALT_OCTETS);
                is_same(&Sha256::new().chain_update(salt).chain_update(password).finalize(), digest)
            }
            Kind::Sha512(hash) => {
                let (salt, digest) = hash.split_at(SALT_OCTETS);
                is_same(&Sha512::new().chain_update(salt).chain_update(password).finalize(), digest)
            }
            Kind::Argon2(hash) => {
                Phc::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
            }
        }
    }

    /// Whether [`PasswordHash::verify`] takes long enough to belong on a thread of its own.
    pub fn is_slow(&self) -> bool {
        matches!(self.0, Kind::Argon2(_))
    }
}

/// Compares in a time that does not tell where the difference is.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn random_octets<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).expect("the system gives random octets");
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a hash that RabbitMQ made is understood.
    /// Method: the worked example of RabbitMQ's documentation: salt 908DC60A, password `test12`.
    #[test]
    fn reads_hashes_of_rabbitmq() {
        let hash = PasswordHash::from_rabbitmq(
            "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
            "rabbit_password_hashing_sha256",
        )
        .unwrap();
        assert!(hash.verify(b"test12"));
        assert!(!hash.verify(b"test13"));
    }

    /// Goal: what is hashed here is verified here, and nothing else is.
    /// Method: every kind, the right password and wrong ones.
    #[test]
    fn verifies_its_own_hashes() {
        for hash in [PasswordHash::new(b"p"), PasswordHash::salted_sha256(b"p")] {
            assert!(hash.verify(b"p"));
            assert!(!hash.verify(b"") && !hash.verify(b"P"));
            assert_eq!(format!("{hash:?}"), "PasswordHash");
        }
        assert!(PasswordHash::new(b"p").is_slow() && !PasswordHash::NONE.verify(b""));
    }

    /// Goal: a hash is the same after it was written down. Method: every kind, and what is none.
    #[test]
    fn parts_make_the_same_hash() {
        for hash in [PasswordHash::new(b"p"), PasswordHash::salted_sha256(b"p"), PasswordHash::NONE] {
            let (method, octets) = hash.parts();
            assert!(PasswordHash::from_parts(method, octets).unwrap() == hash);
        }
        for (method, octets) in [("sha256", &[0; 35][..]), ("sha512", &[0; 36]), ("argon2", b"x"), ("md5", &[0; 20])] {
            assert!(PasswordHash::from_parts(method, octets).is_err(), "{method}");
        }
    }

    /// Goal: a hash that cannot be used is refused with its reason.
    /// Method: one hash for each reason.
    #[test]
    fn refuses_what_is_no_hash() {
        for (hash, algorithm, reason) in [
            ("AAAA", "rabbit_password_hashing_md5", "not supported"),
            ("?", "rabbit_password_hashing_sha256", "not base64"),
            ("AAAA", "rabbit_password_hashing_sha512", "3 octets"),
        ] {
            let error = PasswordHash::from_rabbitmq(hash, algorithm).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(PasswordHash::from_rabbitmq("", "anything").unwrap() == PasswordHash::NONE);
    }
}
