//! What XML demands of text. The stand-ins write their few elements by hand.

/// Text inside an element or between quotes.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
