//! Makes what a server said fit for a log, a status and a journal: short, printable, without secrets.
//!
//! It knows the secrets it is told, ArcGIS's ciphertexts (`{crypt}…`, `v2Crypt_…`: the server takes them back as it gave them, so
//! they are secrets too) and what follows `token=` or `Bearer`. It cannot know a secret nobody told it.

use zeroize::Zeroizing;

use super::form;
use crate::model::Secret;

/// Longer texts are cut here, in characters.
pub const LENGTH_MAX: usize = 200;

/// A shorter "secret" is not looked for: hiding every `a` of a message would give away the password `a`.
const SECRET_MIN: usize = 4;

const MASK: &str = "***";

/// The secrets that an exchange may have put into a server's mouth.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    known: Vec<Secret>,
}

impl Redactor {
    /// One that knows these.
    pub fn new<'a>(known: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut redactor = Self::default();
        known.into_iter().for_each(|secret| redactor.learn(secret));
        redactor
    }

    /// One more to hide.
    pub fn learn(&mut self, secret: &Secret) {
        if secret.expose().len() >= SECRET_MIN && !self.known.contains(secret) {
            self.known.push(secret.clone());
            // A secret may hold another; the longer one goes first, or its rest would stay.
            self.known.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        }
    }

    /// The text without control characters, without secrets, and not longer than [`LENGTH_MAX`] characters.
    pub fn clean(&self, text: &str) -> String {
        cut(self.hide(text).trim())
    }

    /// The same at any length: for a message of ours that has more than one text of the server's in it.
    pub fn hide(&self, text: &str) -> Zeroizing<String> {
        let mut text = Zeroizing::new(printable(text));
        for secret in &self.known {
            for form in spellings(secret) {
                if text.contains(form.as_str()) {
                    text = Zeroizing::new(text.replace(form.as_str(), MASK));
                }
            }
        }
        for (opening, ends) in OPENINGS {
            text = mask_after(&text, opening, *ends);
        }
        text
    }
}

/// Which characters a hidden text is made of.
type Belongs = fn(char) -> bool;

/// What opens a text that nobody told us is secret, and which characters it is made of.
const OPENINGS: &[(&str, Belongs)] = &[
    ("{crypt}", is_base64),
    ("v2crypt_", is_base64),
    ("token=", is_token),
    ("bearer ", is_token),
    ("secret_key=", is_token),
    ("password=", is_token),
];

fn is_base64(character: char) -> bool {
    character.is_ascii_alphanumeric() || "+/=_-".contains(character)
}

fn is_token(character: char) -> bool {
    !character.is_whitespace() && !"&\"'<>,;)".contains(character)
}

/// A secret as an answer may repeat it: plain, form-encoded, in a JSON text, in a page, in a form of JSON (as it was sent), and with
/// the spaces a bad decoder makes of `+`. Each as [`printable`] leaves it, since that is what it is looked for in.
fn spellings(secret: &Secret) -> Vec<Zeroizing<String>> {
    let plain = secret.expose();
    let json = in_json(plain);
    let mut escaped = vec![form::component(plain), form::component(&json)];
    // As forms write a space, and as Java and browsers write the rest; then `%2f` for `%2F`, as some do.
    let plus = escaped.iter().map(|form| Zeroizing::new(form.replace("%20", "+"))).collect::<Vec<_>>();
    let java = plus.iter().map(|form| Zeroizing::new(form.replace('~', "%7E").replace("%2A", "*"))).collect::<Vec<_>>();
    escaped.extend(plus.into_iter().chain(java));
    let lower = escaped.iter().map(|form| lower_escapes(form)).collect::<Vec<_>>();
    let mut all = vec![
        Zeroizing::new(plain.to_owned()),
        Zeroizing::new(plain.replace('+', " ")),
        Zeroizing::new(plain.replace('/', "\\/")),
        in_page(plain),
        Zeroizing::new(json.replace('/', "\\/")),
        in_careful_json(&json),
        json,
    ];
    all.extend(escaped.into_iter().chain(lower));
    for form in &mut all {
        *form = Zeroizing::new(printable(form));
    }
    // One spelling may hold another (`a&b` and `a&amp;b` do not, `ab` and `ab ` do); the longer goes first here too.
    all.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
    all.dedup();
    all.retain(|form| form.len() >= SECRET_MIN);
    all
}

/// Inside the quotes of a JSON text.
fn in_json(plain: &str) -> Zeroizing<String> {
    // A byte becomes six at most; room for all of it, so that growing leaves no copy behind.
    let mut quoted = Zeroizing::new(Vec::with_capacity(6 * plain.len() + 2));
    serde_json::to_writer(&mut *quoted, plain).expect("a text is always JSON, and a Vec takes every write");
    let text = std::str::from_utf8(&quoted).expect("JSON is UTF-8");
    Zeroizing::new(text[1..text.len() - 1].to_owned())
}

/// JSON from a writer that fears to end up in a page, as Java's Gson is by default.
fn in_careful_json(json: &str) -> Zeroizing<String> {
    replaced(json, &[('&', "\\u0026"), ('=', "\\u003d"), ('<', "\\u003c"), ('>', "\\u003e"), ('\'', "\\u0027")])
}

fn in_page(plain: &str) -> Zeroizing<String> {
    replaced(plain, &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")])
}

fn replaced(text: &str, by: &[(char, &str)]) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(6 * text.len()));
    for character in text.chars() {
        match by.iter().find(|(from, _)| *from == character) {
            Some((_, to)) => out.push_str(to),
            None => out.push(character),
        }
    }
    out
}

/// `%2f` for `%2F`; everything else of a form is left as it is.
fn lower_escapes(form: &str) -> Zeroizing<String> {
    let mut left = 0;
    let lowered = form.chars().map(|character| {
        left = if character == '%' { 2 } else { i32::max(left - 1, -1) };
        if left >= 0 && character != '%' { character.to_ascii_lowercase() } else { character }
    });
    let mut out = Zeroizing::new(String::with_capacity(form.len()));
    out.extend(lowered);
    out
}

/// Replaces every run that follows `opening` (in any case); the opening stays, so that a reader sees what was hidden.
fn mask_after(text: &str, opening: &str, belongs: Belongs) -> Zeroizing<String> {
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    let mut out = Zeroizing::new(String::with_capacity(text.len() + MASK.len()));
    let mut from = 0;
    while let Some(found) = lower[from..].find(opening) {
        let start = from + found + opening.len();
        let length: usize = text[start..].chars().take_while(|c| belongs(*c)).map(char::len_utf8).sum();
        out.push_str(&text[from..start]);
        if length > 0 {
            out.push_str(MASK);
        }
        from = start + length;
    }
    out.push_str(&text[from..]);
    out
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !is_invisible(*c))
        .collect()
}

/// Characters that reorder or hide text on a terminal.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LENGTH_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_known_secret_is_hidden_in_every_spelling() {
        let redactor = Redactor::new([&secret("wJalr/XUt+nFEMI=")]);
        for said in ["wJalr/XUt+nFEMI=", "wJalr%2FXUt%2BnFEMI%3D", "wJalr\\/XUt+nFEMI=", "wJalr/XUt nFEMI="] {
            assert_eq!(redactor.clean(&format!("bad key {said}, sorry")), "bad key ***, sorry");
        }
    }

    #[test]
    fn quotes_and_ampersands_do_not_hide_a_secret() {
        let redactor = Redactor::new([&secret("aB\"c\\d&e=f/g+h i%j'k?<\u{1}é")]);
        for said in [
            "aB\"c\\d&e=f/g+h i%j'k?<\u{1}é",
            r#"aB\"c\\d&e=f/g+h i%j'k?<\u0001é"#,
            r#"aB\"c\\d&e=f\/g+h i%j'k?<\u0001é"#,
            r#"aB\"c\\d\u0026e\u003df/g+h i%j\u0027k?\u003c\u0001é"#,
            "aB&quot;c\\d&amp;e=f/g+h i%j&#39;k?&lt;\u{1}é",
            "aB%22c%5Cd%26e%3Df%2Fg%2Bh%20i%25j%27k%3F%3C%01%C3%A9",
            "aB%22c%5cd%26e%3df%2fg%2bh%20i%25j%27k%3f%3c%01%c3%a9",
            "aB%22c%5Cd%26e%3Df%2Fg%2Bh+i%25j%27k%3F%3C%01%C3%A9",
            "aB%5C%22c%5C%5Cd%26e%3Df%2Fg%2Bh%20i%25j%27k%3F%3C%5Cu0001%C3%A9",
            "aB\"c\\d&e=f/g h i%j'k?<\u{1}é",
        ] {
            assert_eq!(redactor.clean(&format!("bad key {said}, sorry")), "bad key ***, sorry");
        }
    }

    #[test]
    fn a_secret_inside_a_longer_one_leaves_no_rest() {
        let redactor = Redactor::new([&secret("abcd"), &secret("abcdefgh")]);
        assert_eq!(redactor.clean("abcdefgh abcd"), "*** ***");
    }

    #[test]
    fn ciphertexts_and_tokens_are_hidden_unasked() {
        let redactor = Redactor::default();
        assert_eq!(redactor.clean("got {crypt}nawx4y2s+/=W68, v2Crypt_ab/c."), "got {crypt}***, v2Crypt_***.");
        assert_eq!(redactor.clean("moved to /x?Token=abc.def&f=json"), "moved to /x?Token=***&f=json");
        assert_eq!(redactor.clean("Authorization: Bearer abc"), "Authorization: Bearer ***");
    }

    #[test]
    fn a_ciphertext_that_was_sent_is_hidden_to_its_end_however_it_is_written() {
        let redactor = Redactor::new([&secret("{crypt}ab/cd+ef=")]);
        for said in ["{crypt}ab/cd+ef=", "{crypt}ab\\/cd+ef=", "%7Bcrypt%7Dab%2Fcd%2Bef%3D", "{crypt}ab/cd ef="] {
            assert_eq!(redactor.clean(&format!("bad {said}, sorry")), "bad ***, sorry");
        }
    }

    #[test]
    fn a_text_is_short_and_printable() {
        assert_eq!(Redactor::default().clean("a\u{1b}[31mb\r\nc\u{202e}d\0"), "a[31mb  cd");
        let long = Redactor::default().clean(&"é".repeat(1000));
        assert_eq!(long.chars().count(), LENGTH_MAX + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_secret_across_the_cut_does_not_show_its_head() {
        let redactor = Redactor::new([&secret("0123456789")]);
        assert!(!redactor.clean(&format!("{}0123456789", "x".repeat(195))).contains("0123"));
    }

    #[test]
    fn a_very_short_secret_does_not_turn_the_message_into_a_riddle() {
        assert_eq!(Redactor::new([&secret("a")]).clean("a bad day"), "a bad day");
    }
}
