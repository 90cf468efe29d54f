//! `application/x-www-form-urlencoded`, decoded as servers decode it: `+` is a space, `%XX` a byte.

/// All pairs, in order. Bytes that are not UTF-8 become U+FFFD, as in the servers we stand in for.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        })
        .collect()
}

/// The first value of `name`.
pub(crate) fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

/// Percent-decoding; `plus` says whether `+` is a space, which it is in forms and is not in paths.
pub(crate) fn decode(text: &str, plus: bool) -> String {
    let raw = text.as_bytes();
    let mut out = Vec::with_capacity(raw.len());
    let mut i = 0;
    while i < raw.len() {
        let hex = |at: usize| raw.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (raw[i], hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two hex digits are one byte"));
                i += 3;
                continue;
            }
            (b'+', ..) if plus => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// RFC 3986: everything but the unreserved is escaped, in upper case.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_that_was_not_escaped_arrives_as_a_space() {
        assert_eq!(value(&pairs("a=x+y&b=x%2By"), "a"), Some("x y"));
        assert_eq!(value(&pairs("a=x+y&b=x%2By"), "b"), Some("x+y"));
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let odd = "a+b/c=d&e%f ?ü";
        assert_eq!(decode(&encode(odd), true), odd);
    }
}
