//! The cookie `AuthSession`: `base64url(NAME:TIME:HMAC)`.
//!
//! TIME is the second at which it was made, in hex; HMAC is made of `NAME:TIME` under the server's secret and the user's
//! salt together, so that a new password, which has a new salt, ends all sessions. CouchDB signs with SHA-256 since 3.4 and
//! takes SHA-1 as well. Nothing else is kept of a session: who has the cookie, has it until it expires.

use base64::Engine as _;
use base64::engine::general_purpose::{NO_PAD, URL_SAFE_NO_PAD};
use base64::{alphabet, engine::GeneralPurpose};
use ring::hmac;

/// The cookie's name.
pub const NAME: &str = "AuthSession";

/// What CouchDB reads: bits that are left over at the end don't matter.
const BASE64URL: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// What is sent instead of a cookie isn't one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Malformed AuthSession cookie. Please clear your cookies.")]
pub struct Malformed;

/// A cookie that somebody sent. It proves nothing before [`Cookie::is_signed`] was asked.
#[derive(Debug)]
pub struct Cookie {
    /// The user.
    name: String,
    /// The second at which it was made.
    time: i64,
    /// `NAME:TIME` as it came.
    signed: Vec<u8>,
    signature: Vec<u8>,
}

impl Cookie {
    /// Reads a cookie's value. `None` for one that nobody can have been given: its name is no text, or its time no number.
    pub fn parse(value: &str) -> Result<Option<Self>, Malformed> {
        let bytes = BASE64URL.decode(value).map_err(|_| Malformed)?;
        let mut colons = bytes.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
        let (Some(first), Some(second)) = (colons.next(), colons.next()) else { return Err(Malformed) };
        let (name, time) = (&bytes[..first], &bytes[first + 1..second]);
        let (Ok(name), Ok(time)) = (std::str::from_utf8(name), std::str::from_utf8(time)) else { return Ok(None) };
        let Ok(time) = i64::from_str_radix(time, 16) else { return Ok(None) };
        let (signed, signature) = (bytes[..second].to_vec(), bytes[second + 1..].to_vec());
        Ok(Some(Self { name: name.to_owned(), time, signed, signature }))
    }

    /// Whose it says it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was made with this secret for a user of this salt.
    pub fn is_signed(&self, secret: &str, salt: &str) -> bool {
        let is = |algorithm| hmac::verify(&key(algorithm, secret, salt), &self.signed, &self.signature).is_ok();
        is(hmac::HMAC_SHA256) || is(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY)
    }

    /// With which hash it was made with this secret for a user of this salt, of all those that a CouchDB may be told to use
    /// (`[chttpd_auth] hash_algorithms`); `None` if it wasn't.
    pub fn hash(&self, secret: &str, salt: &str) -> Option<hmac::Algorithm> {
        let hashes = [hmac::HMAC_SHA256, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA384, hmac::HMAC_SHA512];
        hashes.into_iter().find(|hash| hmac::verify(&key(*hash, secret, salt), &self.signed, &self.signature).is_ok())
    }

    /// Seconds until it expires, if sessions last for `timeout`; `None` if it has.
    pub fn left(&self, now: i64, timeout: i64) -> Option<i64> {
        let left = self.time.checked_add(timeout)?.checked_sub(now)?;
        (left > 0).then_some(left)
    }
}

/// The value of the first session cookie among headers `Cookie`, unless it is empty.
pub fn find<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let pairs = headers.into_iter().flat_map(|cookies| cookies.split(';'));
    let (_, value) = pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == NAME)?;
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some(quoted.unwrap_or(value)).filter(|value| !value.is_empty())
}

/// Makes the value of a cookie.
pub fn sign(name: &str, time: i64, secret: &str, salt: &str) -> String {
    sign_by(hmac::HMAC_SHA256, name, time, secret, salt)
}

/// The same with another hash.
pub fn sign_by(hash: hmac::Algorithm, name: &str, time: i64, secret: &str, salt: &str) -> String {
    let mut bytes = format!("{name}:{time:X}").into_bytes();
    let signature = hmac::sign(&key(hash, secret, salt), &bytes);
    bytes.push(b':');
    bytes.extend_from_slice(signature.as_ref());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn key(algorithm: hmac::Algorithm, secret: &str, salt: &str) -> hmac::Key {
    hmac::Key::new(algorithm, format!("{secret}{salt}").as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "33c1a7f4822f4fec3d16575322c4cd95";
    /// Name, salt and cookie, as a CouchDB 3.5.0 with this secret gave them.
    const GIVEN: [(&str, &str, &str); 3] = [
        (
            "admin",
            "f93b6384e6fab42c9b6d5fd0274d3858",
            "YWRtaW46NkIwOEQyNjQ6FWuC2kPXFAetXXpR2w6S7tVFD8GHWxFsPvliTrgyRvY",
        ),
        (
            "hu_ann",
            "e488ff9fda28cf35ff19e543e3437bad",
            "aHVfYW5uOjZCMDhEMjAxOn95rwoM8SKuVnyxfjnfs_LUDMEPzH6VWtZ8cCb08US_",
        ),
        (
            "hu_jörg",
            "91b1c8250c727725302cacb5693988fb",
            "aHVfasO2cmc6NkIwOEQyNjU6BZIxpcRmgOZ6MlbZ_nL_zmCPhs6mqGK2TdmzleRyypc",
        ),
    ];

    #[test]
    fn a_cookie_is_what_couchdb_makes_of_it() {
        for (name, salt, value) in GIVEN {
            let cookie = Cookie::parse(value).unwrap().unwrap();
            assert_eq!(cookie.name(), name);
            assert!(cookie.is_signed(SECRET, salt));
            assert!(!cookie.is_signed(SECRET, "") && !cookie.is_signed("", salt) && !cookie.is_signed("x", salt));
            assert_eq!(sign(name, cookie.time, SECRET, salt), value);
        }
    }

    /// CouchDB before 3.4 signed so, and 3.5 takes it.
    #[test]
    fn sha1_is_taken_too() {
        let mut bytes = b"bob:6B08D201".to_vec();
        let tag = hmac::sign(&key(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET, "salt"), &bytes);
        bytes.push(b':');
        bytes.extend_from_slice(tag.as_ref());
        let cookie = Cookie::parse(&URL_SAFE_NO_PAD.encode(bytes)).unwrap().unwrap();
        assert!(cookie.is_signed(SECRET, "salt") && !cookie.is_signed(SECRET, "other"));
    }

    #[test]
    fn a_cookies_hash_is_found_whichever_it_is() {
        for hash in [hmac::HMAC_SHA256, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA384, hmac::HMAC_SHA512] {
            let cookie = Cookie::parse(&sign_by(hash, "bob", 1000, SECRET, "salt")).unwrap().unwrap();
            assert_eq!(cookie.hash(SECRET, "salt"), Some(hash));
            assert_eq!((cookie.hash(SECRET, "other"), cookie.hash("x", "salt")), (None, None));
        }
    }

    #[test]
    fn a_session_lasts_for_its_time() {
        let cookie = Cookie::parse(&sign("bob", 1000, "s", "")).unwrap().unwrap();
        assert_eq!([1000, 1599, 1600, 9999].map(|now| cookie.left(now, 600)), [Some(600), Some(1), None, None]);
        let never = Cookie::parse(&sign("bob", i64::MAX, "s", "")).unwrap().unwrap();
        assert_eq!(never.left(0, 600), None);
    }

    #[test]
    fn what_is_no_cookie_is_told_from_one_that_proves_nothing() {
        let parse = |text: &str| Cookie::parse(&URL_SAFE_NO_PAD.encode(text)).map(|cookie| cookie.is_some());
        assert_eq!(["", "bob", "bob:12"].map(parse), [Err(Malformed); 3]);
        assert_eq!(["bob:xy:sig", "bob::"].map(parse), [Ok(false); 2]);
        assert_eq!(["bob:12:", ":12:a:b:c"].map(parse), [Ok(true); 2]);
        for value in ["zz!", "a", "=", &format!("{}=", GIVEN[0].2)] {
            assert_eq!(Cookie::parse(value).map(|_| ()), Err(Malformed), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic_and_proves_nothing(value in "\\PC*", bytes: Vec<u8>) {
            for value in [value, URL_SAFE_NO_PAD.encode(bytes)] {
                if let Ok(Some(cookie)) = Cookie::parse(&value) {
                    prop_assert!(!cookie.is_signed(SECRET, "salt"));
                    cookie.left(1_700_000_000, 600);
                }
            }
        }

        #[test]
        fn a_cookie_of_which_a_bit_was_changed_proves_nothing(
            name in "[^:]{0,20}", time in 0..i64::from(u32::MAX), at: prop::sample::Index, bit in 0..8_u8,
        ) {
            let mut bytes = URL_SAFE_NO_PAD.decode(sign(&name, time, SECRET, "salt")).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(Some(cookie)) = Cookie::parse(&URL_SAFE_NO_PAD.encode(bytes)) {
                prop_assert!(!cookie.is_signed(SECRET, "salt"));
            }
        }

        #[test]
        fn a_cookie_is_its_users_and_no_other_ones(name in "[^:]{0,20}", salt: String, other: String, time: u32) {
            let cookie = Cookie::parse(&sign(&name, time.into(), SECRET, &salt)).unwrap().unwrap();
            prop_assert_eq!(cookie.name(), &name);
            prop_assert!(cookie.is_signed(SECRET, &salt));
            prop_assert_eq!(cookie.is_signed(SECRET, &other), salt == other);
        }
    }
}
