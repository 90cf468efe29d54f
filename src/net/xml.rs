//! The one thing asked of XML here: the text of an element in a flat error body.

/// The text of the first `<name>`. Enough for the error bodies of S3, IAM and Azure Storage, which are flat; entities stay as they
/// are, and an empty element is none.
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
}
