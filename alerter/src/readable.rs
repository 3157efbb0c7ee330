//! Texts as people may be shown them: what comes from a cloud may hold anything.

/// The longest line, in characters.
const LINE: usize = 300;
/// The longest paragraph, in characters.
const PARAGRAPH: usize = 2000;

/// One line: every break and tab is a space, control characters and overrides of the writing direction are left out.
#[must_use]
pub fn line(text: &str) -> String {
    cut(text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| is_shown(*c)), LINE)
}

/// The same where breaks may stay.
#[must_use]
pub fn paragraph(text: &str) -> String {
    cut(text.chars().filter(|c| *c == '\n' || is_shown(*c)), PARAGRAPH)
}

/// Characters that order what follows to be written backwards hide what a text says; letters that are written from
/// right to left are fine.
fn is_shown(c: char) -> bool {
    let is_override =
        matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}');
    // These break lines for some readers of mail, and no others.
    let is_break = matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}');
    !c.is_control() && !is_override && !is_break && c != '\u{feff}'
}

fn cut(chars: impl Iterator<Item = char>, longest: usize) -> String {
    let mut chars = chars;
    let mut text: String = chars.by_ref().take(longest).collect();
    if chars.next().is_some() {
        text.pop();
        text.push('…');
    }
    text.trim().to_owned()
}

/// `1 finding`, `12,345 findings`.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `12,345`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_no_letter_comes_through() {
        assert_eq!(line("a\r\nBcc: x\u{0}\u{1b}[31m\u{2028}b"), "a  Bcc: x[31m b");
        assert_eq!(line("שלום \u{202e}abc 🔥"), "שלום abc 🔥");
        assert_eq!(paragraph("a\r\nb\u{85}"), "a\nb");
        let long = line(&"x".repeat(10_000));
        assert_eq!(long.chars().count(), 300);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn numbers_are_grouped() {
        let numbers = [0, 7, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "7", "999", "1,000", "1,234,567"]);
    }
}
