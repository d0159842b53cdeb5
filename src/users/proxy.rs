//! The word of a proxy that has found out who asks: the headers `X-Auth-CouchDB-UserName`, `-Roles` and `-Token`.
//!
//! The token is the HMAC of the name under a secret that proxy and server share, in hex; SHA-256, or SHA-1 as proxies of
//! CouchDB before 3.4 make it. Roles aren't signed: whoever has a user's token can claim any, so nobody but the proxy may
//! see it.

use ring::hmac;

/// Whether the token is this name's. No name has a colon: with one, the tag of a session's cookie, which is made under the same
/// secret, could pass for a token.
pub fn is_token(token: &str, name: &str, secret: &str) -> bool {
    if name.contains(':') {
        return false;
    }
    let Ok(tag) = hex::decode(token) else { return false };
    let is = |algorithm| hmac::verify(&hmac::Key::new(algorithm, secret.as_bytes()), name.as_bytes(), &tag).is_ok();
    is(hmac::HMAC_SHA256) || is(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY)
}

/// Roles as they stand in a header or a claim: `a, b`.
pub fn roles(text: &str) -> Vec<String> {
    let mut roles: Vec<_> = text.split(',').map(|role| role.trim().to_owned()).collect();
    while roles.last().is_some_and(String::is_empty) {
        roles.pop();
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By Python's hmac.
    #[test]
    fn a_token_is_its_names_under_its_secret() {
        let (sha1, sha256) = (
            "0a60ae371f04a1f4850c8cc1dffcfa55fddab926",
            "24ba3fe1727c959e9c61cd7d00a57b85e66eca9a03c8fb2f074a0d0c62c62162",
        );
        for token in [sha1, sha256] {
            assert!(is_token(token, "foo", "92de07df7e7a3fe14808cef90a7cc0d91"), "{token}");
            assert!(!is_token(token, "fop", "92de07df7e7a3fe14808cef90a7cc0d91"), "{token}");
            assert!(!is_token(token, "foo", ""), "{token}");
            let session = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"s"), b"foo:6B08D201");
            assert!(!is_token(&hex::encode(session), "foo:6B08D201", "s"));
        }
        for token in ["", "zz", "22047ebd"] {
            assert!(!is_token(token, "foo", "92de07df7e7a3fe14808cef90a7cc0d91"), "{token}");
        }
    }

    #[test]
    fn roles_are_parted_by_commas() {
        assert_eq!(roles("a , b,c,"), ["a", "b", "c"]);
        assert_eq!(roles(" "), [""; 0]);
    }
}
