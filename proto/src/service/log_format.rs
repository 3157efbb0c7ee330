//! How lines of the log look: the formats of Python's logging, `%(asctime)s %(levelname)s %(message)s`, with dates as
//! strftime has them.

use std::fmt::{self, Write};
use std::io::IsTerminal;

use jiff::Zoned;
use jiff::fmt::strtime::BrokenDownTime;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// What a line is made of, in the words of Python's logging.
const ATTRIBUTES: [(&str, Attribute); 16] = [
    ("asctime", Attribute::Time),
    ("created", Attribute::Created),
    ("filename", Attribute::FileName),
    ("funcName", Attribute::Module),
    ("levelname", Attribute::Level),
    ("levelno", Attribute::LevelNumber),
    ("lineno", Attribute::Line),
    ("message", Attribute::Message),
    ("module", Attribute::Module),
    ("msecs", Attribute::Milliseconds),
    ("name", Attribute::Name),
    ("pathname", Attribute::Path),
    ("process", Attribute::Process),
    ("processName", Attribute::Program),
    ("thread", Attribute::Thread),
    ("threadName", Attribute::ThreadName),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    Time,
    Created,
    FileName,
    Level,
    LevelNumber,
    Line,
    Message,
    Module,
    Milliseconds,
    Name,
    Path,
    Process,
    Program,
    Thread,
    ThreadName,
}

impl Attribute {
    fn is_number(self) -> bool {
        use Attribute::{Created, LevelNumber, Line, Milliseconds, Process, Thread};
        matches!(self, Created | LevelNumber | Line | Milliseconds | Process | Thread)
    }
}

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

/// One attribute and how wide it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    attribute: Attribute,
    left: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
    /// `f` and the like: with decimals.
    real: bool,
}

/// How lines of the log look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFormat {
    pieces: Vec<Piece>,
    dates: Option<String>,
}

impl LineFormat {
    /// Reads a format and a date format. Without one, dates are as Python writes them: `2026-01-31 23:59:59,123`.
    ///
    /// # Errors
    /// What is wrong with the format, for people.
    ///
    /// ```
    /// use proto::service::log_format::LineFormat;
    /// assert!(LineFormat::new("%(asctime)s %(levelname)-8s %(message)s", Some("%H:%M")).is_ok());
    /// assert!(LineFormat::new("%(level)s", None).unwrap_err().contains("levelname"));
    /// ```
    pub fn new(format: &str, dates: Option<&str>) -> Result<Self, String> {
        if let Some(dates) = dates {
            check_dates(dates)?;
        }
        Ok(Self { pieces: pieces(format)?, dates: dates.map(str::to_owned) })
    }
}

/// Says what is wrong with a date format.
///
/// # Errors
/// What is wrong, for people.
pub fn check_dates(format: &str) -> Result<(), String> {
    let now = Zoned::now();
    BrokenDownTime::from(&now)
        .to_string(format)
        .map(|_| ())
        .map_err(|error| format!("`{format}` is no date format as strftime takes it: {error}"))
}

fn pieces(format: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        let (field, after) = field(rest)?;
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Field(field));
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    if !pieces.iter().any(|piece| matches!(piece, Piece::Field(_))) {
        return Err("nothing of the line that is logged stands in the format; write at least `%(message)s`".to_owned());
    }
    Ok(pieces)
}

/// Reads what stands behind a `%`: `(name)`, flags, width, precision, type.
fn field(text: &str) -> Result<(Field, &str), String> {
    let shown: String = text.chars().take(24).collect();
    let wrong = |what: &str| format!("`%{shown}`: {what}; write `%(message)s`, or `%%` for a per cent sign");
    let inner = text.strip_prefix('(').ok_or_else(|| wrong("an attribute in parentheses is expected"))?;
    let (name, rest) = inner.split_once(')').ok_or_else(|| wrong("the parenthesis is not closed"))?;
    let known = ATTRIBUTES.iter().find(|(known, _)| *known == name);
    let Some((_, attribute)) = known else {
        let names = ATTRIBUTES.map(|(name, _)| name);
        let hint = crate::config::params::did_you_mean(name, names);
        return Err(format!("`%({name})`: unknown attribute{hint} (allowed: {})", names.join(", ")));
    };
    let end = rest.find(|c: char| !matches!(c, '-' | '+' | ' ' | '#' | '0')).unwrap_or(rest.len());
    let (flags, rest) = rest.split_at(end);
    let (width, rest) = number(rest);
    let (precision, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            let (precision, rest) = number(rest);
            (Some(precision), rest)
        }
        None => (None, rest),
    };
    let kind = rest.chars().next().ok_or_else(|| wrong("the type is missing: `s` for text, `d` for numbers"))?;
    let rest = &rest[kind.len_utf8()..];
    let is_number = matches!(kind, 'd' | 'i' | 'u' | 'f' | 'F' | 'g' | 'e');
    if !is_number && !matches!(kind, 's' | 'r' | 'a') {
        return Err(wrong(&format!("`{kind}` is no type: `s` for text, `d` for numbers")));
    }
    if is_number && !attribute.is_number() {
        return Err(format!("`%({name}){kind}`: this is no number; write `%({name})s`"));
    }
    let real = matches!(kind, 'f' | 'F' | 'g' | 'e');
    let width = width.min(MOST_WIDE);
    let field =
        Field { attribute: *attribute, left: flags.contains('-'), zeros: flags.contains('0'), width, precision, real };
    Ok((field, rest))
}

/// The widest that a field is made.
const MOST_WIDE: usize = 200;

fn number(text: &str) -> (usize, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].parse().unwrap_or(0), &text[end..])
}

/// Writes lines in a format.
#[derive(Debug)]
pub(super) struct Lines {
    format: LineFormat,
    program: String,
    colours: bool,
}

impl Lines {
    pub(super) fn new(format: LineFormat) -> Self {
        let program = std::env::args_os().next().map(std::path::PathBuf::from);
        let program = program.as_deref().and_then(std::path::Path::file_name);
        let program = program.map_or_else(|| "cloudmarker".to_owned(), |name| name.to_string_lossy().into_owned());
        Self { format, program, colours: false }
    }

    /// With colours where a person reads them.
    pub(super) fn with_colours(self) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colours: wanted && std::io::stderr().is_terminal(), ..self }
    }

    fn date(&self, now: &Zoned) -> String {
        let format = self.format.dates.as_deref();
        let text = BrokenDownTime::from(now).to_string(format.unwrap_or("%Y-%m-%d %H:%M:%S"));
        let text = text.unwrap_or_else(|_| now.to_string());
        match format {
            Some(_) => text,
            None => format!("{text},{:03}", now.millisecond()),
        }
    }

    fn value<S, N>(&self, field: Field, now: &Zoned, ctx: &FmtContext<'_, S, N>, event: &Event<'_>) -> String
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        let metadata = event.metadata();
        let file = metadata.file().unwrap_or_default();
        match field.attribute {
            Attribute::Time => self.date(now),
            Attribute::Created => {
                let seconds = now.timestamp().as_nanosecond() as f64 / 1e9;
                if field.real { format!("{seconds:.*}", field.precision.unwrap_or(6)) } else { seconds.to_string() }
            }
            Attribute::FileName => file.rsplit('/').next().unwrap_or_default().to_owned(),
            Attribute::Level => level_name(*metadata.level()).to_owned(),
            Attribute::LevelNumber => level_number(*metadata.level()).to_string(),
            Attribute::Line => metadata.line().unwrap_or(0).to_string(),
            Attribute::Message => message(ctx, event),
            Attribute::Module => metadata.target().rsplit("::").next().unwrap_or_default().to_owned(),
            Attribute::Milliseconds => match field.real {
                true => format!("{:.*}", field.precision.unwrap_or(6), f64::from(now.millisecond())),
                false => now.millisecond().to_string(),
            },
            Attribute::Name => metadata.target().replace("::", "."),
            Attribute::Path => file.to_owned(),
            Attribute::Process => std::process::id().to_string(),
            Attribute::Program => self.program.clone(),
            Attribute::Thread => {
                let id = format!("{:?}", std::thread::current().id());
                id.chars().filter(char::is_ascii_digit).collect()
            }
            Attribute::ThreadName => std::thread::current().name().unwrap_or("thread").to_owned(),
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

/// Python's numbers.
fn level_number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG | Level::TRACE => "34",
    }
}

/// What is said, and of what: the spans that it is said in stand before it.
fn message<S, N>(ctx: &FmtContext<'_, S, N>, event: &Event<'_>) -> String
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let mut text = String::new();
    for span in ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
        let extensions = span.extensions();
        let fields = extensions.get::<FormattedFields<N>>().filter(|fields| !fields.is_empty());
        let _ = match fields {
            Some(fields) => write!(text, "{}{{{fields}}}: ", span.name()),
            None => write!(text, "{}: ", span.name()),
        };
    }
    let _ = ctx.format_fields(Writer::new(&mut text), event);
    text
}

fn padded(field: Field, value: &str) -> String {
    let is_cut = field.precision.filter(|_| !field.attribute.is_number());
    let value: String = value.chars().take(is_cut.unwrap_or(usize::MAX)).collect();
    let width = field.width;
    match (field.left, field.zeros && field.attribute.is_number()) {
        (true, _) => format!("{value:<width$}"),
        (false, true) => format!("{value:0>width$}"),
        (false, false) => format!("{value:>width$}"),
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = Zoned::now();
        for piece in &self.format.pieces {
            match piece {
                Piece::Text(text) => writer.write_str(text)?,
                Piece::Field(field) => {
                    let text = padded(*field, &self.value(*field, &now, ctx, event));
                    if self.colours && field.attribute == Attribute::Level {
                        write!(writer, "\x1b[{}m{text}\x1b[0m", colour(*event.metadata().level()))?;
                    } else {
                        writer.write_str(&text)?;
                    }
                }
            }
        }
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What is logged in a format.
    fn logged(format: &str, dates: Option<&str>, log: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(Lines::new(LineFormat::new(format, dates).unwrap()))
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_as_python_writes_it() {
        let line =
            logged("[%(process)s] %(levelname)-8s|%(levelno)04d|%(name)s:%(module)s 100%% - %(message)s", None, || {
                tracing::warn!(count = 3, "what is said");
            });
        let process = std::process::id();
        let expected =
            format!("[{process}] WARNING |0030|proto.service.log_format.tests:tests 100% - what is said count=3\n");
        assert_eq!(line, expected);
    }

    #[test]
    fn the_spans_stand_before_the_message() {
        let line = logged("%(message)s", None, || {
            let _span = tracing::info_span!("unit", audit = "a").entered();
            tracing::info!("said");
        });
        assert_eq!(line, "unit{audit=\"a\"}: said\n");
    }

    #[test]
    fn dates_are_as_the_format_has_them() {
        let line = logged("%(asctime)s|%(message).2s", Some("%Y at %H h %Z"), || tracing::info!("long"));
        let now = Zoned::now();
        assert_eq!(line, format!("{}|lo\n", now.strftime("%Y at %H h %Z")));
        let line = logged("%(asctime)s", None, || tracing::info!("x"));
        let (seconds, milliseconds) = line.trim_end().split_once(',').unwrap();
        assert_eq!((seconds.len(), milliseconds.len()), (19, 3), "{line}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (format, said) in [
            ("%(asctime)s %(mesage)s", "did you mean `message`?"),
            ("%(message)", "the type is missing"),
            ("%(message)q", "`q` is no type"),
            ("%(message)d", "write `%(message)s`"),
            ("%(message", "not closed"),
            ("%message", "in parentheses"),
            ("plain", "nothing of the line"),
        ] {
            let error = LineFormat::new(format, None).unwrap_err();
            assert!(error.contains(said), "{format}: {error}");
        }
        let error = LineFormat::new("%(message)s", Some("%Y-%Q-%!")).unwrap_err();
        assert!(error.contains("strftime"), "{error}");
    }
}
