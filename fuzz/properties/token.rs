//! A token counts if ring says that one of the keys signed it, in the way that the key is for, and not otherwise.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use couchrep::config::auth::{Jwt, JwtKey, RequiredClaims};
use couchrep::users::token::{Claims, Tokens};
use ring::{hmac, signature};
use serde_json::{Map, Value};

use super::choices::Choices;

const RSA: &str = include_str!("keys/rsa.pem");
const EC_256: &str = include_str!("keys/ec256.pem");
const EC_384: &str = include_str!("keys/ec384.pem");
const SECRET: &str = "hello";
const OTHER_SECRET: &str = "another secret";
/// The keys that there are, as the settings name them. Two have one `kid`, and are of different kinds.
const KEYS: [(&str, &str); 5] =
    [("hmac:_default", SECRET), ("hmac:k", OTHER_SECRET), ("rsa:k", RSA), ("ec:k32", EC_256), ("ec:k48", EC_384)];

const NOW: i64 = 1_800_000_000;

pub fn holds(input: &[u8]) {
    let mut choices = Choices::new(input);
    let required = choices.byte() % 64;
    match choices.flag() {
        false => any_text(&String::from_utf8_lossy(choices.rest()), required),
        true => signed(choices, required),
    }
}

/// Claims that a token must have, a bit for each.
fn required(bits: u8) -> RequiredClaims {
    let bit = |place: u8| bits >> place & 1 == 1;
    let iss = bit(5).then(|| "A".to_owned());
    RequiredClaims { exp: bit(0), nbf: bit(1), iat: bit(2), kid: bit(3), typ: bit(4), iss }
}

fn check(token: &str, bits: u8) -> Option<Claims> {
    // Reading an RSA key takes longer than all the rest.
    static TOKENS: [OnceLock<Tokens>; 64] = [const { OnceLock::new() }; 64];
    let tokens = TOKENS[usize::from(bits)].get_or_init(|| {
        let key = |(name, key): &(&str, &str)| {
            let encoded = STANDARD.encode(key);
            JwtKey::new(name, if name.starts_with("hmac") { &encoded } else { key }).unwrap()
        };
        let keys = KEYS.iter().map(key).collect();
        Tokens::new(&Jwt { keys, required_claims: required(bits), ..Jwt::default() }).unwrap()
    });
    tokens.check(token, NOW).ok()
}

/// Whatever the text is, it counts if and only if it should.
fn any_text(token: &str, bits: u8) {
    assert_eq!(check(token, bits), plainly(token, &required(bits)), "{token}");
}

/// What a token proves, found out step by step.
fn plainly(token: &str, required: &RequiredClaims) -> Option<Claims> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let [header, claims] = [header, claims]
        .map(|part| -> Option<Map<String, Value>> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok() });
    let header = header?;
    let typ = header.get("typ");
    if typ.is_some_and(|typ| typ != "JWT")
        || required.typ && typ.is_none()
        || required.kid && !header.contains_key("kid")
    {
        return None;
    }
    let kid = header.get("kid").map_or(Some("_default"), Value::as_str)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    verifies(header.get("alg")?.as_str()?, kid, message.as_bytes(), &signature).then_some(())?;

    let claims = claims?;
    let number =
        |name: &str| claims.get(name).map(|number| number.to_string().parse::<f64>().ok().filter(|n| n.is_finite()));
    let counts = match (number("nbf"), number("exp")) {
        (None, _) if required.nbf => false,
        (_, None) if required.exp => false,
        (Some(None), _) | (_, Some(None)) => false,
        (from, until) => {
            from.flatten().is_none_or(|from| from < NOW as f64)
                && until.flatten().is_none_or(|until| until > NOW as f64)
        }
    };
    let whole = |number: &Value| number.is_i64() || number.is_u64();
    let made = !required.iat || claims.get("iat").is_some_and(whole);
    let issued = required.iss.as_ref().is_none_or(|iss| claims.get("iss").is_some_and(|claimed| claimed == iss));
    (counts && made && issued).then_some(())?;
    let roles = match claims.get("_couchdb.roles") {
        None => Vec::new(),
        Some(Value::Array(roles)) => roles.iter().map(|role| Some(role.as_str()?.to_owned())).collect::<Option<_>>()?,
        Some(Value::String(roles)) => {
            let mut roles: Vec<_> = roles.split(',').map(|role| role.trim().to_owned()).collect();
            roles.truncate(roles.iter().rposition(|role| !role.is_empty()).map_or(0, |last| last + 1));
            roles
        }
        Some(_) => return None,
    };
    Some(Claims { name: claims.get("sub")?.as_str()?.to_owned(), roles })
}

/// Whether the key of this name and of the algorithm's kind signed the message.
fn verifies(algorithm: &str, kid: &str, message: &[u8], signature: &[u8]) -> bool {
    let kind = match algorithm.split_at_checked(2) {
        Some(("HS", _)) => "hmac",
        Some(("RS", _)) => "rsa",
        Some(("ES", _)) => "ec",
        _ => return false,
    };
    let name = format!("{kind}:{kid}");
    let Some((_, key)) = KEYS.iter().find(|(key, _)| *key == name) else { return false };
    if kind == "hmac" {
        let Some(algorithm) = hmac_of(algorithm) else { return false };
        return hmac::verify(&hmac::Key::new(algorithm, key.as_bytes()), message, signature).is_ok();
    }
    let der = STANDARD.decode(key.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    // After what says which kind of key it is, the key itself.
    let (algorithm, before): (&dyn signature::VerificationAlgorithm, _) = match algorithm {
        "RS256" => (&signature::RSA_PKCS1_2048_8192_SHA256, 24),
        "RS384" => (&signature::RSA_PKCS1_2048_8192_SHA384, 24),
        "RS512" => (&signature::RSA_PKCS1_2048_8192_SHA512, 24),
        "ES256" => (&signature::ECDSA_P256_SHA256_FIXED, der.len().saturating_sub(65)),
        "ES384" => (&signature::ECDSA_P384_SHA384_FIXED, der.len().saturating_sub(97)),
        _ => return false,
    };
    signature::UnparsedPublicKey::new(algorithm, &der[before..]).verify(message, signature).is_ok()
}

fn hmac_of(algorithm: &str) -> Option<hmac::Algorithm> {
    match algorithm {
        "HS256" => Some(hmac::HMAC_SHA256),
        "HS384" => Some(hmac::HMAC_SHA384),
        "HS512" => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

/// Signed with one of these, rightly or not, and changed afterwards.
fn signed(mut choices: Choices<'_>, required: u8) {
    const HEADERS: [&str; 4] = [r#""alg":"#, r#""kid":"#, r#""typ":"#, r#""x":"#];
    const CLAIMS: [&str; 7] =
        [r#""sub":"#, r#""exp":"#, r#""nbf":"#, r#""iat":"#, r#""iss":"#, r#""_couchdb.roles":"#, r#""x":"#];
    const WORDS: [&str; 16] = [
        r#""HS256""#,
        r#""HS384""#,
        r#""HS512""#,
        r#""RS256""#,
        r#""ES256""#,
        r#""none""#,
        r#""k""#,
        r#""k32""#,
        r#""_default""#,
        r#""JWT""#,
        r#""""#,
        "null",
        "7",
        r#""hs256""#,
        r#""ES512""#,
        r#""A""#,
    ];
    const VALUES: [&str; 20] = [
        r#""ann""#,
        r#""A""#,
        "1800000001",
        "1800000000",
        "1799999999",
        "1800000000.5",
        "1799999999.999999999999",
        "4e9",
        "-1",
        "1e999",
        "18446744073709551616",
        "0",
        r#""4000000000""#,
        "null",
        "[]",
        r#"["a","b"]"#,
        r#"["_admin",1]"#,
        r#""a , b,,""#,
        "{}",
        "true",
    ];
    let header = object(&mut choices, r#""alg":"HS256""#, &HEADERS, &WORDS);
    let claims = object(&mut choices, r#""sub":"ann","exp":1800000001"#, &CLAIMS, &VALUES);
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let secret = choices.of(&[SECRET, OTHER_SECRET, RSA, RSA.trim_end(), EC_256, "", "_default", "k"]);
    let algorithm = choices.of(&[hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512]);
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
    any_text(&token, required);
    // Without a signature it is nobody's, with any algorithm and key.
    assert_eq!(check(&token[..=message.len()], required), None);
    assert_eq!(check(&message, required), None);

    let mut changed = token.clone().into_bytes();
    for _ in 0..=choices.below(3) {
        let place = choices.number() as usize % (changed.len() + 1);
        let byte = choices.of(b"ABQZaz059-_.=+/ {");
        match choices.below(4) {
            0 => changed.insert(place, byte),
            1 => changed.truncate(place),
            2 => drop(changed.splice(place..(place + 1).min(changed.len()), [])),
            _ => drop(changed.splice(place..(place + 1).min(changed.len()), [byte])),
        }
    }
    if changed != token.as_bytes() {
        assert_eq!(check(&String::from_utf8(changed).unwrap(), required), None);
    }
}

/// An object as a token of one of these has it, or of any members and values, or of any text.
fn object(choices: &mut Choices<'_>, usual: &str, keys: &[&str], values: &[&str]) -> String {
    let mut members = match choices.below(4) {
        3 => return choices.text(64),
        2 => Vec::new(),
        _ => vec![usual.to_owned()],
    };
    for _ in 0..choices.below(6) {
        members.push(format!("{}{}", choices.of(keys), choices.of(values)));
    }
    format!("{{{}}}", members.join(","))
}
