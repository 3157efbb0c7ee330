//! Where in a file something is wrong, shown as compilers do.

use std::fmt;

/// What is wrong with a rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// The line, from 1, if it is known.
    pub line: Option<usize>,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong, and what to do.
    pub message: String,
    /// The line as it stands in the file.
    pub excerpt: String,
}

impl RuleError {
    /// An error of the file as a whole.
    #[must_use]
    pub fn of_file(file: &str, message: String) -> Self {
        Self { file: file.to_owned(), line: None, column: 0, message, excerpt: String::new() }
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(line) = self.line else { return write!(f, "{}: {}", self.file, self.message) };
        write!(f, "{}:{line}:{}: {}", self.file, self.column, self.message)?;
        if self.excerpt.trim().is_empty() {
            return Ok(());
        }
        // A long line is shown around the place.
        const BEFORE: usize = 60;
        const SHOWN: usize = 100;
        let skip = self.column.saturating_sub(BEFORE);
        let shown: String = self.excerpt.chars().skip(skip).take(SHOWN).collect();
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let indent: String = shown
            .chars()
            .take(self.column.saturating_sub(skip + 1))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        write!(f, "\n{number} | {shown}\n{margin} | {indent}^")
    }
}

impl std::error::Error for RuleError {}

/// A rule file's text, in which things are found again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'t> {
    pub(super) file: &'t str,
    pub(super) text: &'t str,
}

impl Source<'_> {
    /// An error at a line and a column, from 1.
    pub(super) fn at(&self, line: usize, column: usize, message: String) -> RuleError {
        let excerpt = self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim_end().to_owned();
        RuleError { file: self.file.to_owned(), line: Some(line), column, message, excerpt }
    }

    /// An error at a character of a value that stands somewhere in the file, behind a key of this name if there is one.
    /// YAML may have folded its lines: white space is not compared.
    pub(super) fn within(&self, key: &str, value: &str, at: usize, message: String) -> RuleError {
        let wanted: Vec<(usize, char)> = value.chars().enumerate().filter(|(_, c)| !c.is_whitespace()).collect();
        // The first character at or behind the place that is not white space.
        let nth = wanted.iter().position(|(index, _)| *index >= at).unwrap_or(wanted.len().saturating_sub(1));
        let keys = self.text.match_indices(key).map(|(start, key)| start + key.len());
        let behind_key = keys.filter(|end| self.text[*end..].trim_start().starts_with(':'));
        for start in behind_key.chain([0]) {
            let Some(offset) = find(&self.text[start..], &wanted, nth) else { continue };
            let before = &self.text[..start + offset];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            return self.at(line, column, message);
        }
        match self.line_of(key) {
            Some(line) => self.at(line, 1, message),
            None => RuleError::of_file(self.file, message),
        }
    }

    /// An error at a key, at the first one of this name.
    pub(super) fn key(&self, key: &str, message: String) -> RuleError {
        match self.line_of(key) {
            Some(line) => {
                let indent = self
                    .text
                    .lines()
                    .nth(line - 1)
                    .map_or(0, |it| it.len() - it.trim_start_matches([' ', '-', '{']).len());
                self.at(line, indent + 1, message)
            }
            None => RuleError::of_file(self.file, message),
        }
    }

    fn line_of(&self, key: &str) -> Option<usize> {
        let is_key = |line: &str| {
            line.trim_start_matches([' ', '-', '{', '"', '\''])
                .strip_prefix(key)
                .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
        };
        self.text.lines().position(is_key).map(|line| line + 1)
    }
}

/// Where in the text the n-th of the wanted characters is, in bytes, at the first place where all of them follow each
/// other with only white space between them.
fn find(text: &str, wanted: &[(usize, char)], nth: usize) -> Option<usize> {
    let (_, first) = *wanted.first()?;
    for (start, _) in text.char_indices().filter(|(_, character)| *character == first) {
        let mut rest = text[start..].char_indices().filter(|(_, character)| !character.is_whitespace());
        let mut found = None;
        let all = wanted.iter().enumerate().all(|(number, (_, wanted))| {
            rest.next().is_some_and(|(offset, character)| {
                if number == nth {
                    found = Some(start + offset);
                }
                character == *wanted
            })
        });
        if all {
            return found;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_found_again_however_yaml_folds_it() {
        let text = "id: x\nfail_if: >\n  a == 1 &&\n  bcd == 2\n";
        let source = Source { file: "f.yaml", text };
        let value = "a == 1 && bcd == 2\n";
        let error = source.within("fail_if", value, 10, "no".into());
        assert_eq!(error.to_string(), "f.yaml:4:3: no\n4 |   bcd == 2\n  |   ^");
        assert_eq!(source.within("fail_if", value, 0, "no".into()).line, Some(3));
        assert_eq!(source.within("fail_if", value, 99, "no".into()).column, 10);
    }

    #[test]
    fn a_value_that_cannot_be_found_is_told_at_its_key() {
        let source = Source { file: "f.yaml", text: "id: x\n  fail_if: \"a\\tb\"\n" };
        let error = source.within("fail_if", "a\tb?", 1, "no".into());
        assert_eq!((error.line, error.excerpt.as_str()), (Some(2), "  fail_if: \"a\\tb\""));
        assert_eq!(source.within("when", "zzz", 0, "no".into()).to_string(), "f.yaml: no");
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let text = format!("fail_if: {}x", "a ".repeat(200));
        let error = Source { file: "f", text: &text }.at(1, 410, "no".into());
        let shown = error.to_string();
        assert!(shown.lines().nth(1).is_some_and(|line| line.len() < 120 && line.ends_with('x')), "{shown}");
        assert!(shown.ends_with('^'), "{shown}");
    }
}
