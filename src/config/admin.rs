//! Server administrators, and how their passwords are kept: as they are, or hashed as CouchDB does.
//!
//! CouchDB writes a hash over every password that it finds in `[admins]`, of one of three kinds:
//! `-pbkdf2:PRF-KEY,SALT,ITERATIONS` (3.4 and later; PRF is `sha`, `sha256`, `sha384` …), `-pbkdf2-KEY,SALT,ITERATIONS`
//! with SHA-1 (1.3 to 3.3), and `-hashed-DIGEST,SALT`, SHA-1 of password and salt, before. Key and digest are hex, the
//! salt counts as it is written. A hash is checked, never turned back.

use std::fmt;
use std::num::NonZeroU32;

use ring::{digest, pbkdf2};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// A server administrator.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The name.
    pub name: String,
    /// What the password is compared with.
    pub password: Password,
}

/// A password, or its hash.
#[derive(Clone)]
pub enum Password {
    /// As it is.
    Plain(SecretString),
    /// `-pbkdf2…`: slow to check, on purpose.
    Pbkdf2 {
        /// The pseudo-random function.
        prf: pbkdf2::Algorithm,
        /// Its rounds.
        iterations: NonZeroU32,
        /// What is hashed with the password.
        salt: String,
        /// What must come out.
        key: Vec<u8>,
    },
    /// `-hashed-`, the scheme of CouchDB before 1.3.
    Simple {
        /// What is hashed after the password.
        salt: String,
        /// What must come out.
        digest: Vec<u8>,
    },
}

/// More rounds than this would make a login a matter of minutes.
pub(super) const MAX_ITERATIONS: u32 = 10_000_000;

impl Admin {
    /// An administrator with this password, hashed or not. The error never shows it.
    pub fn new(name: &str, password: &str) -> Result<Self, &'static str> {
        match name {
            "" => return Err("needs a name"),
            // What is sent at a login ends the name with one.
            name if name.contains(':') => return Err("may not have a colon"),
            _ => {}
        }
        Ok(Self { name: name.to_owned(), password: Password::parse(password)? })
    }
}

impl Password {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(rest) = text.strip_prefix("-hashed-") {
            return simple(rest).ok_or("has a broken hash: expected -hashed-DIGEST,SALT");
        }
        if let Some(rest) = text.strip_prefix("-pbkdf2") {
            return pbkdf2(rest);
        }
        match text.is_empty() {
            true => Err("has an empty password"),
            false => Ok(text.into()),
        }
    }

    /// One that is hashed as user documents say it: `derived_key` and `salt` as they stand there, and the PRF's name.
    pub fn pbkdf2(prf: &str, key: &str, salt: &str, iterations: u32) -> Result<Self, &'static str> {
        let (prf, key_bytes) = algorithm(prf).ok_or(PRF)?;
        let key = hex::decode(key).ok().filter(|key| key.len() == key_bytes).ok_or("has a broken hash")?;
        let iterations = NonZeroU32::new(iterations).ok_or("has a hash of no iterations")?;
        if iterations.get() > MAX_ITERATIONS {
            return Err("has a hash of more iterations than 10,000,000");
        }
        Ok(Self::Pbkdf2 { prf, iterations, salt: salt.to_owned(), key })
    }

    /// The same of CouchDB before 1.3.
    pub fn simple(digest: &str, salt: &str) -> Result<Self, &'static str> {
        let digest = hex::decode(digest).ok().filter(|digest| digest.len() == digest::SHA1_OUTPUT_LEN);
        Ok(Self::Simple { salt: salt.to_owned(), digest: digest.ok_or("has a broken hash")? })
    }

    /// Hashes a password with PBKDF2 and SHA-256, as CouchDB 3.5 does. Takes long, on purpose.
    pub fn hash(password: &str, salt: &str, iterations: NonZeroU32) -> Self {
        let (prf, mut key) = (pbkdf2::PBKDF2_HMAC_SHA256, vec![0; digest::SHA256_OUTPUT_LEN]);
        pbkdf2::derive(prf, iterations, salt.as_bytes(), password.as_bytes(), &mut key);
        Self::Pbkdf2 { prf, iterations, salt: salt.to_owned(), key }
    }

    /// What is hashed with it; cookies are signed with it too. A password as it is has none.
    pub fn salt(&self) -> Option<&str> {
        match self {
            Self::Plain(_) => None,
            Self::Pbkdf2 { salt, .. } | Self::Simple { salt, .. } => Some(salt),
        }
    }

    /// What came out of hashing it; nothing for a password as it is.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Plain(_) => &[],
            Self::Pbkdf2 { key, .. } => key,
            Self::Simple { digest, .. } => digest,
        }
    }

    /// A hash as CouchDB writes it into `[admins]`; `None` for a password as it is.
    pub fn hashed_text(&self) -> Option<String> {
        match self {
            Self::Plain(_) => None,
            Self::Pbkdf2 { prf, iterations, salt, key } => {
                let (name, ..) = ALGORITHMS.into_iter().find(|(_, known, _)| known == prf)?;
                Some(format!("-pbkdf2:{name}-{},{salt},{iterations}", hex::encode(key)))
            }
            Self::Simple { salt, digest } => Some(format!("-hashed-{},{salt}", hex::encode(digest))),
        }
    }

    /// Whether checking it takes so long that it should be done seldom, and not where others wait.
    pub fn is_slow(&self) -> bool {
        matches!(self, Self::Pbkdf2 { .. })
    }

    /// Whether this is the password. The time it takes doesn't tell how much of it is right.
    pub fn is(&self, password: &str) -> bool {
        match self {
            Self::Plain(own) => own.expose_secret().as_bytes().ct_eq(password.as_bytes()).into(),
            Self::Pbkdf2 { prf, iterations, salt, key } => {
                pbkdf2::verify(*prf, *iterations, salt.as_bytes(), password.as_bytes(), key).is_ok()
            }
            Self::Simple { salt, digest } => {
                let hashed = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{password}{salt}").as_bytes());
                hashed.as_ref().ct_eq(digest).into()
            }
        }
    }
}

fn simple(text: &str) -> Option<Password> {
    let (digest, salt) = text.split_once(',')?;
    Password::simple(digest, salt).ok()
}

fn pbkdf2(text: &str) -> Result<Password, &'static str> {
    const FORM: &str = "has a broken hash: expected -pbkdf2-KEY,SALT,ITERATIONS or -pbkdf2:PRF-KEY,SALT,ITERATIONS";
    let (prf, rest) = text.split_once('-').ok_or(FORM)?;
    let prf = if prf.is_empty() { "sha" } else { prf.strip_prefix(':').ok_or(FORM)? };
    algorithm(prf).ok_or(PRF)?;
    let [key, salt, iterations] = rest.split(',').collect::<Vec<_>>()[..] else { return Err(FORM) };
    let iterations = iterations.parse().map_err(|_| FORM)?;
    Password::pbkdf2(prf, key, salt, iterations).map_err(|problem| match problem {
        "has a broken hash" => FORM,
        problem => problem,
    })
}

const PRF: &str = "has a hash of a kind that can't be checked: sha, sha256, sha384 and sha512 can";

/// Pseudo-random functions by CouchDB's names, and the bytes that they make.
const ALGORITHMS: [(&str, pbkdf2::Algorithm, usize); 4] = [
    ("sha", pbkdf2::PBKDF2_HMAC_SHA1, digest::SHA1_OUTPUT_LEN),
    ("sha256", pbkdf2::PBKDF2_HMAC_SHA256, digest::SHA256_OUTPUT_LEN),
    ("sha384", pbkdf2::PBKDF2_HMAC_SHA384, digest::SHA384_OUTPUT_LEN),
    ("sha512", pbkdf2::PBKDF2_HMAC_SHA512, digest::SHA512_OUTPUT_LEN),
];

fn algorithm(prf: &str) -> Option<(pbkdf2::Algorithm, usize)> {
    ALGORITHMS.into_iter().find(|(name, ..)| *name == prf).map(|(_, algorithm, bytes)| (algorithm, bytes))
}

impl From<&str> for Password {
    /// A password as it is.
    fn from(password: &str) -> Self {
        Self::Plain(password.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed with Python's hashlib.
    const HASHED: [&str; 6] = [
        "-pbkdf2-96af052aaa3384add6895c65f483a9148b13c678,921a12f74df0c1052b3e562a23cd227f,10",
        "-pbkdf2:sha-96af052aaa3384add6895c65f483a9148b13c678,921a12f74df0c1052b3e562a23cd227f,10",
        "-pbkdf2:sha256-74e1b22900f3e1b6348cf0c40dbbf139676def63c080829353235cd2b164cb0d,\
         921a12f74df0c1052b3e562a23cd227f,1000",
        "-pbkdf2:sha384-7a3dfb503c32335b2b598a5134ad4d9d5f030f65b8116623354fa7102056b15a1c3bf7637a5f3ace0c1b4643d596e1e2,\
         921a12f74df0c1052b3e562a23cd227f,1000",
        "-pbkdf2:sha512-b9b8124e2de792823b19385e1a8f09d70a6150775d0e5fd5c46c0e83dff5c566\
         0569099a94207035b476af9a913970d3590c72ff6b5e22b58cbddf5cbc0476c5,921a12f74df0c1052b3e562a23cd227f,1000",
        "-hashed-8c7a26495e76c8f3541be2ccb5267fae8d1f7923,7f4a3e05e0cbc6f48a0035e3508eef90",
    ];

    #[test]
    fn every_kind_of_hash_knows_its_password_and_no_other() {
        for hash in HASHED {
            let password = Admin::new("root", hash).unwrap().password;
            assert!(password.is("pass wörd"), "{hash}");
            assert!(!password.is("pass word") && !password.is("") && !password.is(hash), "{hash}");
            let shown = Admin::new("root", &password.hashed_text().unwrap()).unwrap().password;
            assert!(shown.is("pass wörd"), "{hash}");
        }
    }

    #[test]
    fn a_broken_hash_is_refused_and_never_taken_for_a_password() {
        for broken in [
            "-pbkdf2-96af,salt,10",
            "-pbkdf2-96af052aaa3384add6895c65f483a9148b13c678,salt",
            "-pbkdf2-96af052aaa3384add6895c65f483a9148b13c678,salt,0",
            "-pbkdf2-96af052aaa3384add6895c65f483a9148b13c678,salt,4000000000",
            "-pbkdf2:sha224-96af052aaa3384add6895c65f483a9148b13c678,salt,10",
            "-pbkdf2:sha256-96af052aaa3384add6895c65f483a9148b13c678,salt,10",
            "-pbkdf2",
            "-hashed-96af,salt",
            "",
        ] {
            let problem = Admin::new("root", broken).unwrap_err();
            assert!(!problem.contains("96af"), "{problem}");
        }
    }

    #[test]
    fn neither_passwords_nor_hashes_are_printed() {
        for text in [HASHED[0], "hunter2"] {
            let printed = format!("{:?}", Admin::new("root", text).unwrap());
            assert!(printed.contains("root") && !printed.contains("96af") && !printed.contains("hunter2"), "{printed}");
        }
    }
}
