//! Turns the HTML of AWS's descriptions into text.

/// The text of a description: paragraphs apart, list items on lines of their own, no tags.
#[must_use]
pub fn plain(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        push(&mut text, &rest[..at]);
        rest = &rest[at..];
        rest = match rest.strip_prefix('<').and_then(|inner| inner.split_once('>')) {
            Some((tag, after)) if is_tag(tag) => {
                of_tag(&mut text, tag);
                after
            }
            _ => entity(&mut text, rest),
        };
    }
    push(&mut text, rest);
    text.trim().to_owned()
}

/// Adds words; what stands between them is one space, as in HTML.
fn push(text: &mut String, words: &str) {
    for c in words.chars() {
        if c.is_whitespace() || c.is_control() {
            if !text.is_empty() && !text.ends_with([' ', '\n']) {
                text.push(' ');
            }
        } else {
            text.push(c);
        }
    }
}

fn is_tag(tag: &str) -> bool {
    tag.trim_start_matches('/').starts_with(|c: char| c.is_ascii_alphabetic() || c == '!')
}

fn of_tag(text: &mut String, tag: &str) {
    let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '/').collect();
    let name = name.to_ascii_lowercase();
    match name.trim_end_matches('/') {
        "p" | "/p" | "ul" | "/ul" | "ol" | "/ol" | "dl" | "/dl" | "note" | "/note" | "important" | "/important"
        | "pre" | "/pre" | "h1" | "h2" | "h3" | "h4" | "/h1" | "/h2" | "/h3" | "/h4"
            if !text.ends_with("- ") =>
        {
            apart(text, "\n\n");
        }
        "br" | "/li" | "/dt" | "dd" | "/dd" => apart(text, "\n"),
        "li" | "dt" => {
            apart(text, "\n");
            text.push_str("- ");
        }
        _ => {}
    }
}

/// Sees that what follows stands apart by at least so many line ends.
fn apart(text: &mut String, by: &str) {
    let kept = text.trim_end_matches(' ').len();
    if !text.ends_with("- ") {
        text.truncate(kept);
    }
    if text.is_empty() {
        return;
    }
    let ends = text.len() - text.trim_end_matches('\n').len();
    text.push_str(by.get(ends..).unwrap_or_default());
}

/// Adds the character that an entity stands for, or the `&` or `<` that is none; gives what follows.
fn entity<'a>(text: &mut String, rest: &'a str) -> &'a str {
    let known = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&apos;", "'"),
        ("&nbsp;", " "),
    ];
    for (name, stands_for) in known {
        if let Some(after) = rest.strip_prefix(name) {
            text.push_str(stands_for);
            return after;
        }
    }
    let (first, after) = rest.split_at(1);
    text.push_str(first);
    after
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn descriptions_become_text() {
        for (html, text) in [
            (
                "<p>Creates a <code>v1</code>  policy.</p> <p>See <a href=\"x>\">the\n guide</a>.</p>",
                "Creates a v1 policy.\n\nSee \">the guide.",
            ),
            ("<p>One:</p><ul> <li> <p>a</p> </li> <li><p>b</p></li></ul><p>end</p>", "One:\n\n- a\n\n- b\n\nend"),
            ("a &lt;b&gt; &amp;amp; 1 < 2 & 3<br/>c", "a <b> &amp; 1 < 2 & 3\nc"),
            ("", ""),
            ("<", "<"),
            ("x\u{1b}[31m", "x [31m"),
        ] {
            assert_eq!(plain(html), text, "{html}");
        }
    }
}
