//! A name and a password, wherever they were written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use secrecy::SecretString;

/// A name and a password.
#[derive(Clone)]
pub struct Credentials {
    /// The name as it was written: not percent-decoded where it stood in a URL.
    pub written_name: String,
    /// The name.
    pub name: String,
    /// The password.
    pub password: SecretString,
}

impl Credentials {
    pub(super) fn new(name: String, password: String) -> Self {
        Self { written_name: name.clone(), name, password: password.into() }
    }

    /// Reads `name:password` as it stands in a URL; a name alone has an empty password.
    pub(super) fn from_userinfo(text: &str) -> Option<Self> {
        let (name, password) = text.split_once(':').unwrap_or((text, ""));
        let decoded = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let credentials = Self::new(decoded(name), decoded(password));
        (!name.is_empty()).then(|| Self { written_name: name.to_owned(), ..credentials })
    }

    /// Reads the value of an `Authorization` header; `None` if it isn't a Basic one.
    pub fn from_header(value: &str) -> Option<Self> {
        let (scheme, encoded) = value.split_once(' ')?;
        let text = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let (name, password) = std::str::from_utf8(&text).ok()?.split_once(':')?;
        Some(Self::new(name.to_owned(), password.to_owned()))
    }
}

/// Takes Basic `Authorization` headers out, and gives the credentials of the first.
pub fn take_basic(headers: &mut Vec<(String, String)>) -> Option<Credentials> {
    let mut found = None;
    headers.retain(|(name, value)| {
        let basic = name.eq_ignore_ascii_case("authorization").then(|| Credentials::from_header(value)).flatten();
        let keep = basic.is_none();
        found = found.take().or(basic);
        keep
    });
    found
}
