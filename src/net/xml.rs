//! What is asked of XML here: the text of an element in a flat error body, and that text as a person reads it.

use std::borrow::Cow;

/// The five entities that XML has by itself (XML 1.0, section 4.6). The ampersand's is the last, so that nothing is decoded twice.
const ENTITIES: [(&str, &str); 5] = [("&quot;", "\""), ("&apos;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];

/// A text with its entities decoded, for a message. A policy of S3 quotes the resource it denies: `&quot;arn:aws:s3:::b&quot;`.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(ENTITIES.iter().fold(text.to_owned(), |text, (entity, letter)| text.replace(entity, letter)))
}

/// The text of the first `<name>`. Enough for the error bodies of S3, IAM and Azure Storage, which are flat; entities stay as they
/// are ([`plain`] reads them), and an empty element is none.
pub fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let start = body.find(&format!("<{name}>"))? + name.len() + 2;
    let length = body[start..].find(&format!("</{name}>"))?;
    Some(body[start..start + length].trim()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_of_a_name_is_found() {
        let body = "<Error><Code> AccessDenied </Code><Message></Message><Codes>x</Codes></Error>";
        assert_eq!(element(body, "Code"), Some("AccessDenied"));
        assert_eq!(element(body, "Message"), None);
        assert_eq!(element(body, "Region"), None);
        assert_eq!(element("<Code>open", "Code"), None);
    }

    #[test]
    fn entities_are_decoded_once() {
        assert_eq!(plain("resource: &quot;arn:aws:s3:::b&quot; &lt;&apos;&gt;"), "resource: \"arn:aws:s3:::b\" <'>");
        assert_eq!(plain("&amp;quot; &unknown; &"), "&quot; &unknown; &");
        assert!(matches!(plain("nothing to do"), Cow::Borrowed(_)));
    }
}
