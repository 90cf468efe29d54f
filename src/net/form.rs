//! Writes `application/x-www-form-urlencoded` bodies that hold secrets.
//!
//! Stricter than the standard asks: everything but letters, digits and `-._~` is escaped, a space as `%20`. An unescaped `+` in an
//! AWS secret arrives as a space, and a wrong key is then stored by a job that succeeds. Does not read forms.

use zeroize::Zeroizing;

/// The content type of what [`encode`] writes.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

/// The fields as one body, in one buffer that is wiped when dropped and was never moved by growing.
pub fn encode(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let length_max = fields.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(length_max));
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            body.push(b'&');
        }
        escape(name, &mut body);
        body.push(b'=');
        escape(value, &mut body);
    }
    body
}

/// One value, escaped as [`encode`] does it.
pub fn component(text: &str) -> Zeroizing<String> {
    let mut escaped = Zeroizing::new(Vec::with_capacity(3 * text.len()));
    escape(text, &mut escaped);
    Zeroizing::new(escaped.iter().map(|&byte| char::from(byte)).collect())
}

fn escape(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_form_would_misread_is_escaped() {
        let body = encode(&[("credential", "a+b/c=d&e%f g?\"é"), ("f", "json")]);
        assert_eq!(
            std::str::from_utf8(&body).expect("an encoded form is ASCII"),
            "credential=a%2Bb%2Fc%3Dd%26e%25f%20g%3F%22%C3%A9&f=json"
        );
        assert_eq!(component("-._~aZ9+").as_str(), "-._~aZ9%2B");
        assert!(encode(&[]).is_empty());
    }
}
