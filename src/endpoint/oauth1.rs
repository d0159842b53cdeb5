//! OAuth 1.0a (RFC 5849): every request is signed with two shared secrets, or with a private key.
//!
//! The signature covers method, URL and query, so a request that is redirected or sent again is signed anew. Bodies are
//! JSON or multipart, which OAuth 1.0 leaves out.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use ring::hmac;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::signature::{SignatureEncoding as _, Signer as _};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha1::Sha1;
use url::Url;

use crate::percent;

/// Who asks, on whose behalf, and how that is signed.
#[derive(Debug, Clone)]
pub struct OAuth1 {
    consumer_key: String,
    token: String,
    signer: Arc<Signer>,
}

/// `auth.oauth` of an endpoint. With RSA-SHA1, `consumer_secret` is the private key as PEM.
#[derive(Deserialize)]
pub(super) struct Fields {
    consumer_key: String,
    consumer_secret: SecretString,
    token: String,
    token_secret: SecretString,
    #[serde(default = "hmac_sha1")]
    signature_method: String,
}

enum Signer {
    /// Holds both secrets, joined by `&`.
    HmacSha1(SecretString),
    Plaintext(SecretString),
    RsaSha1(Box<SigningKey<Sha1>>),
}

impl OAuth1 {
    pub(super) fn new(fields: Fields) -> Result<Self, &'static str> {
        let secrets = || {
            let [consumer, token] =
                [&fields.consumer_secret, &fields.token_secret].map(|secret| secret.expose_secret());
            SecretString::from(format!("{}&{}", encode(consumer), encode(token)))
        };
        let signer = match fields.signature_method.as_str() {
            "HMAC-SHA1" => Signer::HmacSha1(secrets()),
            "PLAINTEXT" => Signer::Plaintext(secrets()),
            "RSA-SHA1" => Signer::RsaSha1(Box::new(private_key(fields.consumer_secret.expose_secret())?)),
            _ => return Err("oauth.signature_method` must be HMAC-SHA1, PLAINTEXT or RSA-SHA1"),
        };
        Ok(Self { consumer_key: fields.consumer_key, token: fields.token, signer: Arc::new(signer) })
    }

    /// The value of the `Authorization` header for one request.
    pub fn authorization(&self, method: &Method, url: &Url, nonce: &str, timestamp: u64) -> String {
        let timestamp = timestamp.to_string();
        let mut protocol = vec![
            ("oauth_consumer_key", self.consumer_key.as_str()),
            ("oauth_nonce", nonce),
            ("oauth_signature_method", self.signer.name()),
            ("oauth_timestamp", &timestamp),
            ("oauth_token", &self.token),
        ];
        let signature = self.signer.sign(&base_string(method, url, &protocol));
        protocol.push(("oauth_signature", &signature));
        let pairs: Vec<_> = protocol.iter().map(|(name, value)| format!("{name}=\"{}\"", encode(value))).collect();
        format!("OAuth {}", pairs.join(", "))
    }
}

impl Signer {
    fn name(&self) -> &'static str {
        match self {
            Self::HmacSha1(_) => "HMAC-SHA1",
            Self::Plaintext(_) => "PLAINTEXT",
            Self::RsaSha1(_) => "RSA-SHA1",
        }
    }

    fn sign(&self, base: &str) -> String {
        match self {
            Self::HmacSha1(secrets) => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secrets.expose_secret().as_bytes());
                STANDARD.encode(hmac::sign(&key, base.as_bytes()))
            }
            Self::Plaintext(secrets) => secrets.expose_secret().to_owned(),
            Self::RsaSha1(key) => STANDARD.encode(key.sign(base.as_bytes()).to_bytes()),
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn hmac_sha1() -> String {
    "HMAC-SHA1".into()
}

/// Reads a private key in either of the two forms that PEM files have.
fn private_key(pem: &str) -> Result<SigningKey<Sha1>, &'static str> {
    let key = rsa::RsaPrivateKey::from_pkcs8_pem(pem).ok().or_else(|| rsa::RsaPrivateKey::from_pkcs1_pem(pem).ok());
    key.map(SigningKey::new).ok_or("oauth.consumer_secret` must be an RSA private key as PEM")
}

/// What is signed (RFC 5849 3.4.1).
fn base_string(method: &Method, url: &Url, protocol: &[(&str, &str)]) -> String {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    let own = protocol.iter().map(|(name, value)| (encode(name), encode(value)));
    let query = url.query_pairs().map(|(name, value)| (encode(&name), encode(&value)));
    let mut parameters: Vec<_> = own.chain(query).collect();
    parameters.sort();
    let parameters: Vec<_> = parameters.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{method}&{}&{}", encode(bare.as_str()), encode(&parameters.join("&")))
}

fn encode(text: &str) -> String {
    percent::encode(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn oauth(method: &str, consumer_secret: &str) -> OAuth1 {
        let fields = json!({
            "consumer_key": "dpf43f3p2l4k3l03", "consumer_secret": consumer_secret,
            "token": "nnch734d00sl2jdk", "token_secret": "pfkkdhi9sl3r4s00", "signature_method": method,
        });
        OAuth1::new(serde_json::from_value(fields).unwrap()).unwrap()
    }

    const PHOTO: &str = "http://photos.example.net/photos?file=vacation.jpg&size=original";

    #[test]
    fn the_example_of_rfc_5849_1_2_is_signed_as_there() {
        let signed = oauth("HMAC-SHA1", "kd94hf93k423kf44");
        let header = signed.authorization(&Method::GET, &Url::parse(PHOTO).unwrap(), "chapoH", 137_131_202);
        assert_eq!(
            header,
            r#"OAuth oauth_consumer_key="dpf43f3p2l4k3l03", oauth_nonce="chapoH", oauth_signature_method="HMAC-SHA1", "#
                .to_owned()
                + r#"oauth_timestamp="137131202", oauth_token="nnch734d00sl2jdk", "#
                + r#"oauth_signature="MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D""#
        );
    }

    #[test]
    fn the_base_string_of_rfc_5849_3_4_1_1_comes_out() {
        // The form body's two parameters stand in the query here: couchrep sends no forms.
        let url = "http://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b&c2&a3=2+q";
        let protocol = [
            ("oauth_consumer_key", "9djdj82h48djs9d2"),
            ("oauth_token", "kkk9d7dh3k39sjv7"),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", "137131201"),
            ("oauth_nonce", "7d8f3e4a"),
        ];
        assert_eq!(
            base_string(&Method::POST, &Url::parse(url).unwrap(), &protocol),
            "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D\
             %26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1\
             %26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
        );
    }

    #[test]
    fn plaintext_is_both_secrets() {
        let header =
            oauth("PLAINTEXT", "djr9rjt0jd78jf88").authorization(&Method::GET, &Url::parse(PHOTO).unwrap(), "n", 1);
        assert!(header.ends_with(r#"oauth_signature="djr9rjt0jd78jf88%26pfkkdhi9sl3r4s00""#), "{header}");
    }

    /// The key and the signature of OAuth's own test cases (wiki.oauth.net/TestCases).
    const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBALRiMLAh9iimur8V
A7qVvdqxevEuUkW4K+2KdMXmnQbG9Aa7k7eBjK1S+0LYmVjPKlJGNXHDGuy5Fw/d
7rjVJ0BLB+ubPK8iA/Tw3hLQgXMRRGRXXCn8ikfuQfjUS1uZSatdLB81mydBETlJ
hI6GH4twrbDJCR2Bwy/XWXgqgGRzAgMBAAECgYBYWVtleUzavkbrPjy0T5FMou8H
X9u2AC2ry8vD/l7cqedtwMPp9k7TubgNFo+NGvKsl2ynyprOZR1xjQ7WgrgVB+mm
uScOM/5HVceFuGRDhYTCObE+y1kxRloNYXnx3ei1zbeYLPCHdhxRYW7T0qcynNmw
rn05/KO2RLjgQNalsQJBANeA3Q4Nugqy4QBUCEC09SqylT2K9FrrItqL2QKc9v0Z
zO2uwllCbg0dwpVuYPYXYvikNHHg+aCWF+VXsb9rpPsCQQDWR9TT4ORdzoj+Nccn
qkMsDmzt0EfNaAOwHOmVJ2RVBspPcxt5iN4HI7HNeG6U5YsFBb+/GZbgfBT3kpNG
WPTpAkBI+gFhjfJvRw38n3g/+UeAkwMI2TJQS4n8+hid0uus3/zOjDySH3XHCUno
cn1xOJAyZODBo47E+67R4jV1/gzbAkEAklJaspRPXP877NssM5nAZMU0/O/NGCZ+
3jPgDUno6WbJn5cqm8MqWhW1xGkImgRk+fkDBquiq4gPiT898jusgQJAd5Zrr6Q8
AO/0isr/3aa6O6NLQxISLKcPDk2NOccAfS/xOtfOz4sJYM3+Bs4Io9+dZGSDCA54
Lw03eHTNQghS0A==
-----END PRIVATE KEY-----";

    #[test]
    fn rsa_sha1_signs_as_oauths_test_case() {
        let base = "GET&http%3A%2F%2Fphotos.example.net%2Fphotos&file%3Dvacaction.jpg%26oauth_consumer_key%3Ddpf43f3p2l4k3l03\
                    %26oauth_nonce%3D13917289812797014437%26oauth_signature_method%3DRSA-SHA1%26oauth_timestamp%3D1196666512\
                    %26oauth_version%3D1.0%26size%3Doriginal";
        assert_eq!(
            oauth("RSA-SHA1", KEY).signer.sign(base),
            "jvTp/wX1TYtByB1m+Pbyo0lnCOLIsyGCH7wke8AUs3BpnwZJtAuEJkvQL2/9n4s5wUmUl4aCI4BwpraNx4RtEXMe5qg5T1LVTGliMRpKasKs\
             W//e+RinhejgCuzoH26dyF8iY2ZZ/5D1ilgeijhV/vBka5twt399mXwaYdCwFYE="
        );
    }

    #[test]
    fn nothing_secret_is_printed() {
        for (method, secret) in [("HMAC-SHA1", "s3cret"), ("PLAINTEXT", "s3cret"), ("RSA-SHA1", KEY)] {
            let text = format!("{:?}", oauth(method, secret));
            assert!(!text.contains("s3cret") && !text.contains("pfkk") && !text.contains("MII"), "{text}");
        }
    }
}
