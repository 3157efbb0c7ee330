//! How results look: tables with lines and colours on a terminal, bare columns elsewhere, so that scripts and files
//! get nothing but text.

use std::io::IsTerminal;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

/// Ends a painted text. Invisible, and of no width to the table; replaced when the table is a text.
const END: char = '\u{2064}';

/// The colours of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// All is well.
    Good,
    /// Something is wrong.
    Bad,
    /// Something needs a look.
    Odd,
    /// It goes on.
    Busy,
    /// Of less weight.
    Faint,
}

impl Colour {
    const ALL: [Self; 5] = [Self::Good, Self::Bad, Self::Odd, Self::Busy, Self::Faint];

    /// Invisible, and of no width to the table.
    fn mark(self) -> char {
        match self {
            Self::Good => '\u{2060}',
            Self::Bad => '\u{2061}',
            Self::Odd => '\u{2062}',
            Self::Busy => '\u{2063}',
            Self::Faint => '\u{206a}',
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Good => "\u{1b}[32m",
            Self::Bad => "\u{1b}[1;31m",
            Self::Odd => "\u{1b}[33m",
            Self::Busy => "\u{1b}[36m",
            Self::Faint => "\u{1b}[2m",
        }
    }
}

/// How results look where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    lines: bool,
    colours: bool,
    width: Option<u16>,
}

impl Look {
    /// For standard output: lines on a terminal, and colours unless `NO_COLOR` is set or the terminal is dumb.
    #[must_use]
    pub fn of_stdout() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self::bare();
        }
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        let width = size.map(|size| size.ws_col).filter(|columns| *columns > 0);
        Self { lines: true, colours: !is_set("NO_COLOR") && !is_dumb, width }
    }

    /// Text alone: columns without lines, no colours, however wide.
    #[must_use]
    pub const fn bare() -> Self {
        Self { lines: false, colours: false, width: None }
    }

    /// Lines without colours, however wide: as the documentation shows it.
    #[must_use]
    pub const fn lined() -> Self {
        Self { lines: true, colours: false, width: None }
    }

    /// Whether it is for a person at a terminal.
    #[must_use]
    pub fn is_for_a_person(self) -> bool {
        self.lines
    }

    /// A text on a line of its own that begins with `begin`: on a terminal what does not fit is cut, elsewhere it is
    /// there as far as `most` characters.
    #[must_use]
    pub fn line(self, begin: &str, text: &str, most: usize) -> String {
        let room = self.width.map_or(most, |width| usize::from(width).saturating_sub(begin.chars().count() + 1));
        format!("{begin}{}\n", cut(text, most.min(room.max(20))))
    }

    /// How many lines of the terminal a text takes: those that are too long are broken there.
    #[must_use]
    pub fn height(self, text: &str) -> usize {
        let width = self.width.map_or(usize::MAX, usize::from);
        text.lines().map(|line| columns(line).max(1).div_ceil(width)).sum()
    }

    /// An empty table; as wide as the terminal, elsewhere each row is one line.
    #[must_use]
    pub fn table(self, header: &[&str]) -> Table {
        let mut table = Table::new();
        if self.lines {
            table.load_style(presets::UTF8_BORDERS_ONLY);
        } else {
            table.load_style(presets::NOTHING);
        }
        if let Some(width) = self.width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        table.set_header(header.iter().copied());
        if !self.lines {
            for column in table.column_iter_mut() {
                column.set_padding((0, 2));
            }
        }
        table
    }

    /// A text in a colour, for a table's cell or for [`Look::finish`].
    #[must_use]
    pub fn paint(self, colour: Colour, text: &str) -> String {
        if self.colours && !text.is_empty() { format!("{}{text}{END}", colour.mark()) } else { text.to_owned() }
    }

    /// A number: with its thousands apart for a person, as it is for a program.
    #[must_use]
    pub fn count(self, count: u64) -> Cell {
        number(self.digits(count))
    }

    /// The same as a text.
    #[must_use]
    pub fn digits(self, count: u64) -> String {
        if self.lines { thousands(count) } else { count.to_string() }
    }

    /// The text of a table, with a line break at its end.
    #[must_use]
    pub fn text_of(self, table: &Table) -> String {
        let mut text = String::new();
        for line in table.to_string().lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        self.finish(&text)
    }

    /// The text with its colours.
    #[must_use]
    pub fn finish(self, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let mut finished = String::with_capacity(text.len() + 64);
        for letter in text.chars() {
            match Colour::ALL.iter().find(|colour| colour.mark() == letter) {
                Some(colour) => finished.push_str(colour.code()),
                None if letter == END => finished.push_str("\u{1b}[0m"),
                None => finished.push(letter),
            }
        }
        finished
    }
}

/// How many columns a line takes, without what makes it coloured.
fn columns(line: &str) -> usize {
    let (mut columns, mut in_code) = (0, false);
    for letter in line.chars() {
        match letter {
            '\u{1b}' => in_code = true,
            'm' if in_code => in_code = false,
            _ if !in_code => columns += 1,
            _ => {}
        }
    }
    columns
}

/// A cell of a text that somebody else wrote: control characters would act on the terminal.
#[must_use]
pub fn cell(text: &str) -> Cell {
    Cell::new(shown(text))
}

/// A number's cell.
#[must_use]
pub fn number(number: impl std::fmt::Display) -> Cell {
    Cell::new(number).set_alignment(CellAlignment::Right)
}

/// A text that somebody else wrote, on one line and without what would act on the terminal.
#[must_use]
pub fn shown(text: &str) -> String {
    let marks = |letter: &char| *letter == END || Colour::ALL.iter().any(|colour| colour.mark() == *letter);
    text.chars().filter(|letter| !marks(letter)).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The beginning of a text, at most so many characters.
#[must_use]
pub fn cut(text: &str, most: usize) -> String {
    let text = shown(text);
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A number with its thousands apart: `1 234 567`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A time span for people: `45s`, `3m 20s`, `2h 05m`.
#[must_use]
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOURED: Look = Look { lines: true, colours: true, width: None };

    #[test]
    fn a_colour_takes_no_room_in_a_table() {
        let row = |look: Look| {
            let mut table = look.table(&["what", "n"]);
            table.add_row([Cell::new(look.paint(Colour::Bad, "failed")), number(1)]);
            table.add_row([Cell::new("in order"), number(12)]);
            look.text_of(&table)
        };
        let coloured = row(COLOURED);
        assert!(coloured.contains("\u{1b}[1;31mfailed\u{1b}[0m"), "{coloured}");
        assert_eq!(coloured.replace("\u{1b}[1;31m", "").replace("\u{1b}[0m", ""), row(Look::lined()));
    }

    #[test]
    fn elsewhere_there_are_no_lines() {
        let mut table = Look::bare().table(&["what", "n"]);
        table.add_row([cell("one\ntwo"), number(1)]);
        assert_eq!(Look::bare().text_of(&table), "what     n\none two  1\n");
    }

    #[test]
    fn numbers_and_spans_are_for_people() {
        assert_eq!(thousands(1_234_567).replace('\u{202f}', " "), "1 234 567");
        assert_eq!((thousands(999), thousands(0)), ("999".into(), "0".into()));
        assert_eq!([5, 200, 7500, 90_000].map(span), ["5s", "3m 20s", "2h 05m", "1d 01h"]);
    }

    #[test]
    fn lines_fit_the_terminal() {
        let narrow = Look { width: Some(30), ..COLOURED };
        let line = narrow.line("  ! ", &"x".repeat(100), 90);
        assert_eq!((line.chars().count(), narrow.height(&line)), (31, 1), "{line}");
        assert_eq!(Look::bare().line("  ! ", "abc", 90), "  ! abc\n");
        let painted = narrow.finish(&narrow.paint(Colour::Bad, &"y".repeat(31)));
        assert_eq!(narrow.height(&format!("{painted}\n\nz\n")), 4);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("größer", 3), "grö…");
        assert_eq!(cut("kurz", 4), "kurz");
        assert_eq!(shown("a\u{1b}[31mb\u{2061}c"), "a [31mbc");
    }
}
