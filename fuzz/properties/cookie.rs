//! A cookie is its user's and nobody else's: what wasn't signed as it stands, with this secret and salt, proves nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use couchrep::users::cookie::{Cookie, sign};

use super::choices::Choices;

/// A secret that no input has a signature of.
const SECRET: &str = "6b8e1f0c2d9a47f3a5c41d7e90b2f8ac";

pub fn holds(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.below(3) {
        0 => any_text(&String::from_utf8_lossy(choices.rest())),
        1 => any_text(&URL_SAFE_NO_PAD.encode(choices.rest())),
        _ => signed(choices),
    }
}

fn any_text(value: &str) {
    let read = Cookie::parse(value);
    let expected = plainly(value);
    match (&read, &expected) {
        (Err(_), None) | (Ok(None), Some(None)) => {}
        (Ok(Some(cookie)), Some(Some((name, time)))) => {
            assert_eq!(cookie.name(), name);
            assert!(!cookie.is_signed(SECRET, "") && !cookie.is_signed("", SECRET) && !cookie.is_signed(SECRET, name));
            for (now, timeout) in [(0, 600), (*time, 1), (*time, 0), (i64::MAX, 600), (i64::MIN, i64::MAX)] {
                let left = i128::from(*time) + i128::from(timeout) - i128::from(now);
                let sum = i128::from(*time) + i128::from(timeout);
                let fits = |number: i128| i64::try_from(number).is_ok();
                let expected = (left > 0 && fits(sum) && fits(left)).then_some(left);
                assert_eq!(cookie.left(now, timeout).map(i128::from), expected);
            }
        }
        _ => panic!("{value:?} was read as {read:?} and is {expected:?}"),
    }
}

/// A cookie's name and time, read letter by letter; `Some(None)` for one that nobody can have been given.
fn plainly(value: &str) -> Option<Option<(String, i64)>> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in value.bytes() {
        let six = LETTERS.iter().position(|&other| other == letter)?;
        bits = (bits << 6 | six as u32) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    if value.len() % 4 == 1 {
        return None;
    }
    let mut parts = bytes.splitn(3, |&byte| byte == b':');
    let (name, time, _) = (parts.next()?, parts.next()?, parts.next()?);
    let time = std::str::from_utf8(time).ok().and_then(|time| i64::from_str_radix(time, 16).ok());
    Some(String::from_utf8(name.to_vec()).ok().zip(time))
}

/// HMAC fills a key of up to 64 bytes up with zeros, so that zeros at its end make no other key.
fn key(secret: &str, salt: &str) -> String {
    let key = format!("{secret}{salt}");
    if key.len() > 64 { key } else { key.trim_end_matches('\0').to_owned() }
}

fn signed(mut choices: Choices<'_>) {
    let (name, secret, salt) = (choices.text(40), choices.text(80), choices.text(80));
    let (other_secret, other_salt) = (choices.text(80), choices.text(80));
    let time = (choices.number() >> choices.below(64)) as i64 & i64::MAX;
    let value = sign(&name, time, &secret, &salt);
    any_text(&value);
    let is_signed = |value: &str, secret: &str, salt: &str| {
        Cookie::parse(value).ok().flatten().is_some_and(|cookie| cookie.is_signed(secret, salt))
    };
    if name.contains(':') {
        // It would be read as another name's.
        return assert!(!is_signed(&value, &secret, &salt));
    }
    assert_eq!(plainly(&value), Some(Some((name.clone(), time))));
    assert!(is_signed(&value, &secret, &salt));
    for (other_secret, other_salt) in [(&secret, &other_salt), (&other_secret, &salt), (&other_secret, &other_salt)] {
        let same = key(&secret, &salt) == key(other_secret, other_salt);
        assert_eq!(is_signed(&value, other_secret, other_salt), same);
    }
    let genuine = URL_SAFE_NO_PAD.decode(&value).unwrap();
    let mut bytes = genuine.clone();
    for _ in 0..=choices.below(3) {
        let place = choices.number() as usize % (bytes.len() + 1);
        let byte = choices.byte();
        match choices.below(4) {
            0 => bytes.insert(place, byte),
            1 => bytes.truncate(place),
            2 => drop(bytes.splice(place..(place + 1).min(bytes.len()), [])),
            _ => drop(bytes.splice(place..(place + 1).min(bytes.len()), [byte])),
        }
    }
    let changed = URL_SAFE_NO_PAD.encode(&bytes);
    any_text(&changed);
    assert_eq!(is_signed(&changed, &secret, &salt), bytes == genuine);
}
