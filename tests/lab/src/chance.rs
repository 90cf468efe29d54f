//! Names and secrets nobody can guess, shaped as the vendors shape them.

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::STANDARD};

pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    rand::fill(&mut out).expect("the system's randomness does not fail");
    out
}

fn pick<const N: usize>(alphabet: &[u8]) -> String {
    bytes::<N>().iter().map(|b| char::from(alphabet[usize::from(*b) % alphabet.len()])).collect()
}

/// `AKIA` and sixteen of base32, like a long-term AWS key id.
pub(crate) fn access_key_id() -> String {
    format!("AKIA{}", pick::<16>(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
}

/// Forty of base64. Every one has a `+` and a `/` inside, so that a client which forgets to escape a form cannot be lucky.
pub(crate) fn secret_access_key() -> String {
    let mut secret = STANDARD.encode(bytes::<30>());
    let at = usize::from(bytes::<1>()[0]) % 16;
    secret.replace_range(4 + at..5 + at, "+");
    secret.replace_range(20 + at..21 + at, "/");
    secret
}

/// The ids AWS gives users: `AIDA` and sixteen of base32.
pub(crate) fn user_id() -> String {
    format!("AIDA{}", pick::<16>(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
}

/// A bearer token as long as ArcGIS makes them.
pub(crate) fn token() -> String {
    format!("{}..", STANDARD.encode(bytes::<72>()).replace(['+', '/', '='], "-"))
}

/// `j` and a UUID: the id of every ArcGIS admin job.
pub(crate) fn job_id() -> String {
    format!("j{}", uuid::Uuid::new_v4())
}

/// A UUID, where AWS puts a request id.
pub(crate) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// So many bytes in Base64. Every one has a `+` and a `/` inside, so that a client which forgets to escape cannot be lucky.
pub(crate) fn account_key<const N: usize>() -> String {
    let mut raw = bytes::<N>();
    // Six bits of ones are a `/`, and 62 is a `+`: the first three bytes begin with both.
    raw[0] = 0b1111_1011;
    raw[1] |= 0b1111_0000;
    STANDARD.encode(raw)
}

/// Forty characters with `8Q~` behind the first three, as Entra makes client secrets.
pub(crate) fn client_secret() -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~";
    format!("{}8Q~{}", pick::<3>(alphabet), pick::<34>(alphabet))
}

/// As long as an access token of Entra is, and as meaningless to whoever carries it.
pub(crate) fn access_token() -> String {
    let part = |text: String| text.replace('+', "-").replace('/', "_").replace('=', "");
    format!("eyJ0eXAi.{}.{}", part(STANDARD.encode(bytes::<255>())), part(STANDARD.encode(bytes::<192>())))
}

/// `0x8D` and twelve hexadecimal digits, as the Blob service marks versions.
pub(crate) fn etag() -> String {
    format!("0x8D{}", pick::<12>(b"0123456789ABCDEF"))
}

/// Thirty-two hexadecimal digits, as IBM's Object Storage names access keys.
pub(crate) fn hexadecimal() -> String {
    pick::<32>(b"0123456789abcdef")
}

/// The access id of an HMAC key of a service account: sixty-one characters, as Google makes them ("HMAC keys").
pub(crate) fn access_id() -> String {
    format!("GOOG1E{}", pick::<55>(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
}

/// As Cloud Storage marks versions: some bytes in Base64.
pub(crate) fn google_etag() -> String {
    STANDARD.encode(bytes::<8>())
}

/// `-` and eight small letters, as F5's console appends them to names.
pub(crate) fn name_suffix() -> String {
    format!("-{}", pick::<8>(b"abcdefghijklmnopqrstuvwxyz"))
}
