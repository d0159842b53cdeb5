//! Keys and signatures by OpenSSL; the settings have PEMs with `\n` in them, as CouchDB's do.

use proptest::prelude::*;
use ring::hmac;
use serde_json::json;

use super::*;

const RSA: &str = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAmpQq3CqjS0eUOiCGvnYJ\nOPXpWU\
    m5FOe36vV0N1FYouIny3DTwqsRm44ir7OABBTwJCnO1rpXDd3+6TqrkRv8\nx1JqMn2GPgqHJaUSULJt5eK3ivHZD2CzZ6r8lJu/\
    AjOGUwqomSHf9lISS4r/gME9\no41KTHtQISbs1bWzecoOOdVwiNLy/2+K9yinPCeTx3Xj+RIaw2aehht119XCrykW\nUCIJGH3u\
    q0Ja5wuTbrXyKK3bo5GoToZ1LdBsFeBg4UjQDDDe8vSSvRqWQkKEQXuC\nZVUSWPiJNnNvoO4TDZTu8JofT/wCYjqZjTyYb1WN3S\
    o7uO659w3CdkZOG+pasm+W\nnQIDAQAB\n-----END PUBLIC KEY-----";
const EC_256: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEPd2xgtKWwfJ/cL4A3YCZnGeCOCnF\nJ9wVfR\
    05XCWAADD5qtLpBDAMuLQFCRfWwBNxfOPsbYWXMG1tLNADUs2IWA==\n-----END PUBLIC KEY-----";
const EC_384: &str = "-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEQaw/nlG/4HOPT9x9MxGyRFeswPmc1QRh\nvCesAT\
    1jRpcSnQ+jk/O2/F+VRppNWU9Hd5HhUXeeY3MC2Z4N96r0Hwk545JATcSR\nv+HE73FfLUM7+XzIfaXSEnFxmxJ0TJ+R\n-----E\
    ND PUBLIC KEY-----";
const RS256: &str = "eyJhbGciOiAiUlMyNTYiLCAidHlwIjogIkpXVCIsICJraWQiOiAiayJ9.eyJzdWIiOiAiYW5uIiwgImV4cCI6IDQwMDAwMDAwMDA\
    sICJfY291Y2hkYi5yb2xlcyI6IFsiYSJdfQ.DgptIOf8xPwzNhBEvBTk3Ejb8S1jEtvfChhQ7Y_mRcE7Bx8LOebS20YXGPLsTTP3\
    c7FryFZfsoBcJxx1etDhuG4OV-A5cCHuMEmDsm52eJY4XP7FR7Swu03GbxXb7SRWNcnfUNd98tx3QFLpt-g49IjAwaQFLtY9RjsI\
    I8QAmnTrlOx4FEF_KhnJ_zrCp_LHm10BB--o3sEPngyf7_kCe8mCLdJPEhEPRs9pekL5elZGjefups0JIgav5flxnp4VIIK-wJBR\
    oU9fpUn0JOhero9RTom6VBXc6kQ4NVj1CVKg89T3E1q8t5BAhl6wsx_efksPfh9cJvNdVwSE_uh_tQ";
const RS512: &str = "eyJhbGciOiAiUlM1MTIiLCAidHlwIjogIkpXVCIsICJraWQiOiAiayJ9.eyJzdWIiOiAiYW5uIiwgImV4cCI6IDQwMDAwMDAwMDA\
    sICJfY291Y2hkYi5yb2xlcyI6IFsiYSJdfQ.KWiTglwPVxpcCyIKT3nWoTxnm-RP7kO1wZzYA5J0I1CrvoIBRQ6UHHxtXdt2Pl35\
    FLrID5lLh_BVLaNFVVPiWF97bP1YY78eBYlVpEynjkemwOEDnOP_w7eM4ov9s7TdtZ28YtMWpwHOU-XbDKF3RrgoVqLq1pecD8lB\
    LOZU1TF7K9ixZXOofnDD4-0Y23XjaOEXUmzgTUbTIvlWrP_mS5832Q2xogvLRPORNZsUGq480w_M4oJGZ0qSpFUHUrRcGQ8XnKHH\
    Ctklt1ASxo2xkeipEubStPD8Hdg4aju5W7bqRq4iY8G1aVNjFXPWhWOX0SZq_zi7NaGRuZKibnGS3g";
const ES256: &str = "eyJhbGciOiAiRVMyNTYiLCAidHlwIjogIkpXVCIsICJraWQiOiAiazMyIn0.eyJzdWIiOiAiYW5uIiwgImV4cCI6IDQwMDAwMDAw\
    MDAsICJfY291Y2hkYi5yb2xlcyI6IFsiYSJdfQ.v1ahTReL7QATN2raRWlNzVbMlgoMQm8GQ5MJwTFJZeXtMbq7DeeQ4KA7Vp1GE\
    qdG3OcgcYRqhhkif6f1wUIgDA";
const ES384: &str = "eyJhbGciOiAiRVMzODQiLCAidHlwIjogIkpXVCIsICJraWQiOiAiazQ4In0.eyJzdWIiOiAiYW5uIiwgImV4cCI6IDQwMDAwMDAw\
    MDAsICJfY291Y2hkYi5yb2xlcyI6IFsiYSJdfQ.CPRG1vXqFsrO7LkSm94NlSBoF4xi9e4KqIZIfpJMFqe7D96QMp-PUJ0g43fIf\
    DBxLB7fwAO6JcnUxPz2tmZrv9HxcP3MeDlLkZenDREGm2KCRa5p_tPwZ4z9OqjwRwAj";

const SECRET: &[u8] = b"hello";
const NOW: i64 = 1_800_000_000;

fn tokens(required: &str) -> Tokens {
    let keys = [
        ("hmac:_default", "aGVsbG8="),
        ("hmac:other", "b3RoZXI="),
        ("rsa:k", RSA),
        ("ec:k32", EC_256),
        ("ec:k48", EC_384),
    ];
    let keys = keys.map(|(name, key)| JwtKey::new(name, &key.replace('\n', "\\n")).unwrap()).into();
    Tokens::new(&Jwt { keys, required_claims: required.parse().unwrap(), ..Jwt::default() }).unwrap()
}

fn signed(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn hs256(claims: Value) -> String {
    signed(&json!({ "alg": "HS256", "typ": "JWT" }), &claims, SECRET)
}

fn ann(roles: &[&str]) -> Claims {
    Claims { name: "ann".into(), roles: roles.iter().map(|role| (*role).to_owned()).collect() }
}

#[test]
fn tokens_of_every_kind_of_key_are_known() {
    for token in [RS256, RS512, ES256, ES384] {
        assert_eq!(tokens("exp").check(token, NOW), Ok(ann(&["a"])), "{token}");
        let mut other = token.to_owned();
        other.replace_range(token.len() - 9..token.len() - 5, "AAAA");
        assert_eq!(tokens("exp").check(&other, NOW), Err(TokenError::Bad("Bad signature")));
    }
    let token = hs256(json!({ "sub": "ann", "exp": NOW + 1, "_couchdb.roles": "a, b" }));
    assert_eq!(tokens("exp").check(&token, NOW), Ok(ann(&["a", "b"])));
}

/// A public key is no secret: whoever has it must not be able to sign with it.
#[test]
fn a_key_is_never_used_in_a_way_that_it_is_not_for() {
    let claims = json!({ "sub": "ann", "exp": NOW + 1 });
    for (alg, secret, words) in [
        ("none", &b""[..], "Invalid alg header parameter"),
        ("None", b"", "Invalid alg header parameter"),
        ("PS256", b"", "Invalid alg header parameter"),
        ("HS256", RSA.as_bytes(), "Unknown kid"),
        ("RS256", SECRET, "Bad signature"),
    ] {
        let token = signed(&json!({ "alg": alg, "kid": "k" }), &claims, secret);
        assert_eq!(tokens("exp").check(&token, NOW), Err(TokenError::Bad(words)), "{alg}");
        let unsigned = &token[..=token.rfind('.').unwrap()];
        assert!(tokens("exp").check(unsigned, NOW).is_err(), "{alg}");
    }
    let token = signed(&json!({ "alg": "HS256", "kid": "other" }), &claims, SECRET);
    assert_eq!(tokens("exp").check(&token, NOW), Err(TokenError::Bad("Bad HMAC")));
}

#[test]
fn what_a_token_lacks_is_told_in_couchdbs_words() {
    let (bad, not) = (TokenError::Bad, TokenError::Unauthorized);
    let claimed = |required: &str, claims: Value| tokens(required).check(&hs256(claims), NOW).unwrap_err();
    assert_eq!(claimed("exp", json!({ "sub": "ann" })), bad("Missing exp claim"));
    assert_eq!(claimed("exp", json!({ "sub": "ann", "exp": NOW })), not("exp not in future"));
    assert_eq!(claimed("", json!({ "sub": "ann", "exp": NOW })), not("exp not in future"));
    assert_eq!(claimed("exp", json!({ "sub": "ann", "exp": "4000000000" })), bad("Invalid exp claim"));
    assert_eq!(claimed("", json!({ "sub": "ann", "nbf": NOW })), not("nbf not in past"));
    assert_eq!(claimed("nbf", json!({ "sub": "ann" })), bad("Missing nbf claim"));
    assert_eq!(claimed("iat", json!({ "sub": "ann" })), bad("Missing iat claim"));
    assert_eq!(claimed("iat", json!({ "sub": "ann", "iat": "x" })), bad("Invalid iat claim"));
    assert_eq!(claimed("{iss, \"A\"}", json!({ "sub": "ann" })), bad("Missing iss claim"));
    assert_eq!(claimed("{iss, \"A\"}", json!({ "sub": "ann", "iss": "B" })), bad("Invalid iss claim"));
    assert_eq!(claimed("kid", json!({ "sub": "ann" })), bad("Missing kid claim"));
    assert_eq!(claimed("", json!({})), not("Token missing sub claim."));
    assert_eq!(claimed("", json!({ "sub": 1 })), bad("Malformed token"));
    assert_eq!(claimed("", json!({ "sub": "ann", "_couchdb.roles": [1] })), bad("Malformed token"));
    assert_eq!(claimed("", json!([])), bad("Not an object"));

    let headed = |header: Value| tokens("").check(&signed(&header, &json!({ "sub": "ann" }), SECRET), NOW);
    assert_eq!(headed(json!({})), Err(bad("Missing alg header parameter")));
    assert_eq!(headed(json!({ "alg": "HS256", "typ": "jwt" })), Err(bad("Invalid typ header parameter")));
    assert_eq!(headed(json!({ "alg": "HS256", "kid": 1 })), Err(bad("Unknown kid")));
    assert_eq!(headed(json!({ "alg": "HS256" })), Ok(ann(&[])));
    for token in ["", ".", "..", "a.b.c", "a.b", "a.b.c.d"] {
        assert_eq!(tokens("").check(token, NOW), Err(bad("Malformed token")), "{token}");
    }
}

#[test]
fn a_key_that_can_not_be_used_is_named_and_not_shown() {
    for (name, key, words) in [
        ("hmac:a", "!", "the JWT key a is not base64"),
        ("hmac:a", "", "the JWT key a is empty"),
        ("rsa:a", EC_256, "the JWT key a is not an RSA public key"),
        ("ec:a", RSA, "the JWT key a is not an EC public key"),
        ("ec:a", "secret", "the JWT key a is not an EC public key"),
    ] {
        let keys = vec![JwtKey::new(name, key).unwrap()];
        assert_eq!(Tokens::new(&Jwt { keys, ..Jwt::default() }).unwrap_err().to_string(), words);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_without_a_panic_and_proves_nothing(
        text in "\\PC*", header in "\\{\"alg\":\"(HS256|RS256|ES256|none)\"(,\"kid\":\"k(32|48)?\")?\\}",
        claims: Vec<u8>, signature: Vec<u8>,
    ) {
        let parts = [header.into_bytes(), claims, signature].map(|part| URL_SAFE_NO_PAD.encode(part));
        for token in [text, parts.join(".")] {
            prop_assert!(tokens("").check(&token, NOW).is_err());
        }
    }

    #[test]
    fn a_token_of_which_a_bit_was_changed_proves_nothing(
        which in 0..3_usize, at: prop::sample::Index, bit in 0..8_u8,
    ) {
        let token = hs256(json!({ "sub": "ann", "exp": NOW + 1 }));
        let mut parts: Vec<_> = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        let at = at.index(parts[which].len());
        parts[which][at] ^= 1 << bit;
        let changed: Vec<_> = parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
        prop_assert!(tokens("").check(&changed.join("."), NOW).is_err());
    }
}
