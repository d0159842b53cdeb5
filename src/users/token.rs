//! JSON web tokens: `Authorization: Bearer HEADER.CLAIMS.SIGNATURE`.
//!
//! Somebody else has found out who asks, and signs it with a key that the settings know. The header names the algorithm and
//! the key (`kid`); a key is found by both together, so that a token can't have its signature checked in a way that the key
//! isn't for, and there is no way of having it unchecked. `sub` is the name and `_couchdb.roles` the roles, `_admin` too.
//!
//! The words are those of CouchDB's `jwtf`. On purpose it is stricter: the signature is checked before anything that it
//! signs is looked at; `exp` and `nbf` hold wherever they stand, not only if they are required, and must be numbers; ES512
//! is none, since its curve isn't known here.

use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use super::proxy;
use crate::config::auth::{Jwt, JwtKey, JwtKeyKind, RequiredClaims};

/// Checks tokens.
pub struct Tokens {
    keys: HashMap<(JwtKeyKind, String), DecodingKey>,
    required: RequiredClaims,
    roles_claim: String,
}

/// What a token proves.
#[derive(Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who asks.
    pub name: String,
    /// His roles.
    pub roles: Vec<String>,
}

/// Why a token proves nothing, in CouchDB's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token, or signed with another key.
    #[error("{0}")]
    Bad(&'static str),
    /// It doesn't count now, or is nobody's.
    #[error("{0}")]
    Unauthorized(&'static str),
}

/// A key of the settings that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the JWT key {kid} {problem}")]
pub struct BadKey {
    kid: String,
    problem: &'static str,
}

/// It isn't three parts of base64url, or what they say is no JSON object.
const MALFORMED: TokenError = TokenError::Bad("Malformed token");

impl Tokens {
    /// Checks with these keys. Without any, nobody needs to be asked.
    pub fn new(settings: &Jwt) -> Result<Self, BadKey> {
        let key = |key: &JwtKey| {
            let read = read_key(key).map_err(|problem| BadKey { kid: key.kid().to_owned(), problem })?;
            Ok(((key.kind, key.kid().to_owned()), read))
        };
        let keys = settings.keys.iter().map(key).collect::<Result<_, _>>()?;
        Ok(Self { keys, required: settings.required_claims.clone(), roles_claim: settings.roles_claim_name.clone() })
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whom a token is for, at this second.
    pub fn check(&self, token: &str, now: i64) -> Result<Claims, TokenError> {
        let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { return Err(MALFORMED) };
        let header = object(header)?;
        if header.contains_key("typ") || self.required.typ {
            let typ = header.get("typ").ok_or(TokenError::Bad("Missing typ header parameter"))?;
            (typ == "JWT").then_some(()).ok_or(TokenError::Bad("Invalid typ header parameter"))?;
        }
        let algorithm = header.get("alg").ok_or(TokenError::Bad("Missing alg header parameter"))?;
        let (kind, algorithm) =
            algorithm.as_str().and_then(algorithm_of).ok_or(TokenError::Bad("Invalid alg header parameter"))?;
        let kid = match header.get("kid") {
            None if self.required.kid => return Err(TokenError::Bad("Missing kid claim")),
            None => Some("_default"),
            Some(kid) => kid.as_str(),
        };
        let key = kid.and_then(|kid| self.keys.get(&(kind, kid.to_owned()))).ok_or(TokenError::Bad("Unknown kid"))?;

        let signed = &token[..token.len() - signature.len() - 1];
        if !crypto::verify(signature, signed.as_bytes(), key, algorithm).unwrap_or(false) {
            return Err(TokenError::Bad(if kind == JwtKeyKind::Hmac { "Bad HMAC" } else { "Bad signature" }));
        }
        let claims = object(claims)?;
        self.hold(&claims, now)?;
        let name = claims.get("sub").ok_or(TokenError::Unauthorized("Token missing sub claim."))?;
        Ok(Claims { name: name.as_str().ok_or(MALFORMED)?.to_owned(), roles: self.roles(&claims)? })
    }

    /// Whether what is claimed of the token itself holds.
    fn hold(&self, claims: &Map<String, Value>, now: i64) -> Result<(), TokenError> {
        if let Some(issuer) = &self.required.iss {
            let claimed = claims.get("iss").ok_or(TokenError::Bad("Missing iss claim"))?;
            (claimed == issuer).then_some(()).ok_or(TokenError::Bad("Invalid iss claim"))?;
        }
        if self.required.iat {
            let made = claims.get("iat").ok_or(TokenError::Bad("Missing iat claim"))?;
            (made.is_i64() || made.is_u64()).then_some(()).ok_or(TokenError::Bad("Invalid iat claim"))?;
        }
        match claims.get("nbf") {
            None if self.required.nbf => return Err(TokenError::Bad("Missing nbf claim")),
            None => {}
            Some(from) => {
                let from = from.as_f64().ok_or(TokenError::Bad("Invalid nbf claim"))?;
                (from < now as f64).then_some(()).ok_or(TokenError::Unauthorized("nbf not in past"))?;
            }
        }
        match claims.get("exp") {
            None if self.required.exp => Err(TokenError::Bad("Missing exp claim")),
            None => Ok(()),
            Some(until) => {
                let until = until.as_f64().ok_or(TokenError::Bad("Invalid exp claim"))?;
                (until > now as f64).then_some(()).ok_or(TokenError::Unauthorized("exp not in future"))
            }
        }
    }

    fn roles(&self, claims: &Map<String, Value>) -> Result<Vec<String>, TokenError> {
        let texts = |roles: &Vec<Value>| roles.iter().map(|role| role.as_str().map(str::to_owned)).collect();
        match claims.get(&self.roles_claim) {
            None => Ok(Vec::new()),
            Some(Value::Array(roles)) => Option::ok_or(texts(roles), MALFORMED),
            Some(Value::String(roles)) => Ok(proxy::roles(roles)),
            Some(_) => Err(MALFORMED),
        }
    }
}

/// The algorithms that there are, each with the kind of key that it needs.
fn algorithm_of(name: &str) -> Option<(JwtKeyKind, Algorithm)> {
    Some(match name {
        "HS256" => (JwtKeyKind::Hmac, Algorithm::HS256),
        "HS384" => (JwtKeyKind::Hmac, Algorithm::HS384),
        "HS512" => (JwtKeyKind::Hmac, Algorithm::HS512),
        "RS256" => (JwtKeyKind::Rsa, Algorithm::RS256),
        "RS384" => (JwtKeyKind::Rsa, Algorithm::RS384),
        "RS512" => (JwtKeyKind::Rsa, Algorithm::RS512),
        "ES256" => (JwtKeyKind::Ec, Algorithm::ES256),
        "ES384" => (JwtKeyKind::Ec, Algorithm::ES384),
        _ => return None,
    })
}

fn read_key(key: &JwtKey) -> Result<DecodingKey, &'static str> {
    let text = key.key.expose_secret();
    let pem = || text.replace("\\n", "\n");
    match key.kind {
        JwtKeyKind::Hmac => {
            let secret = STANDARD.decode(text).map_err(|_| "is not base64")?;
            // Whoever signs with nothing signs as everybody.
            if secret.is_empty() { Err("is empty") } else { Ok(DecodingKey::from_secret(&secret)) }
        }
        JwtKeyKind::Rsa => DecodingKey::from_rsa_pem(pem().as_bytes()).map_err(|_| "is not an RSA public key"),
        JwtKeyKind::Ec => DecodingKey::from_ec_pem(pem().as_bytes()).map_err(|_| "is not an EC public key"),
    }
}

fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED)?;
    match serde_json::from_slice(&json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(TokenError::Bad("Not an object")),
        Err(_) => Err(MALFORMED),
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
