//! The little of XML that the older services of AWS answer in.

/// The text of each element of this name, whatever it is in. The answers that are read hold no such name but as an
/// element, and names in them are no markup.
pub(super) fn texts<'a>(xml: &'a str, element: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let mut texts = Vec::new();
    let mut rest = xml;
    while let Some((_, after)) = rest.split_once(&open) {
        let Some((text, after)) = after.split_once(&close) else { break };
        texts.push(text.trim());
        rest = after;
    }
    texts
}

/// The text of the first element of this name.
pub(super) fn text<'a>(xml: &'a str, element: &str) -> Option<&'a str> {
    texts(xml, element).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_by_name() {
        let xml = "<r><i><name>a</name></i><i><name> b </name><names>c</names></i><name>d";
        assert_eq!(texts(xml, "name"), ["a", "b"]);
        assert_eq!(text(xml, "names"), Some("c"));
        assert_eq!(text(xml, "nothing"), None);
    }
}
