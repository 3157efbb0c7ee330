//! Logs: to standard error, and to files where they are named. Standard output is for results.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Mutex;

use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer as FieldWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::args::LogArgs;
use super::log_file::{LogFile, Writer};
use super::log_format::{LineFormat, Lines};
use crate::config::{Environment, LoggerConfig, OURS};

/// What is logged.
#[derive(Debug, Clone)]
pub struct Logging {
    /// Where to.
    pub outputs: Vec<LogOutput>,
    /// What is logged at all, unless a logger says otherwise.
    pub root: LevelFilter,
    /// What is logged of parts of the program, by the beginning of their names.
    pub loggers: Vec<(String, LevelFilter)>,
}

/// Where lines go, from which level on, and how they look.
#[derive(Debug, Clone)]
pub struct LogOutput {
    /// The file; none for standard error.
    pub file: Option<LogFile>,
    /// From which level on: our own words. Of libraries what is worse than usual.
    pub level: LevelFilter,
    /// How they look.
    pub format: LogFormat,
}

/// How lines look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// As this program has them.
    #[default]
    Plain,
    /// An object of JSON each.
    Json,
    /// In a format of Python's logging.
    Lines(LineFormat),
}

impl Logging {
    /// What the options of a service say.
    ///
    /// # Errors
    /// What is wrong with them, for people.
    pub fn of_args(args: &LogArgs) -> Result<Self, String> {
        let (level, loggers) = args.levels();
        let format = args.format().map_err(|error| format!("--log-format: {error}"))?;
        let output = |file| LogOutput { file, level, format: format.clone() };
        let file = args.file().map(|file| output(Some(file)));
        Ok(Self { outputs: [output(None)].into_iter().chain(file).collect(), root: level, loggers })
    }

    /// What the section `logger` says. A file of the command line stands in place of the configuration's.
    #[must_use]
    pub fn of_config(config: &LoggerConfig, file: Option<&std::path::Path>, environment: &Environment) -> Self {
        let mut outputs: Vec<LogOutput> = config
            .handlers
            .iter()
            .map(|handler| LogOutput {
                file: handler.file.as_ref().map(|log| LogFile { path: environment.path(&log.path), ..log.clone() }),
                level: handler.level.into(),
                format: handler.format.clone().map_or(LogFormat::Plain, LogFormat::Lines),
            })
            .collect();
        if let Some(path) = file {
            let known = outputs.iter_mut().find_map(|output| output.file.as_mut());
            match known {
                Some(file) => file.path = path.to_owned(),
                None => {
                    let file = LogFile { path: path.to_owned(), rotation: super::log_file::Rotation::None, backups: 0 };
                    outputs.push(LogOutput { file: Some(file), level: LevelFilter::TRACE, format: LogFormat::Plain });
                }
            }
        }
        let loggers = config.loggers.iter().map(|(name, level)| (name.clone(), LevelFilter::from(*level)));
        Self { outputs, root: config.root_level.into(), loggers: loggers.collect() }
    }
}

/// Begins to log. The variable `RUST_LOG`, when it is set, decides what goes to standard error instead. Returns
/// warnings for people about files that cannot be used: a program is not kept from its work by its log.
#[must_use]
pub fn begin(logging: &Logging) -> Option<String> {
    let mut warnings = Vec::new();
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
    for output in &logging.outputs {
        let filter = filter(output.level, logging.root, &logging.loggers);
        match &output.file {
            None => layers.push(match EnvFilter::try_from_default_env() {
                Ok(chosen) => console(&output.format).with_filter(chosen).boxed(),
                Err(_) => console(&output.format).with_filter(filter).boxed(),
            }),
            Some(file) => match Writer::open(file.clone()) {
                Ok(writer) => layers.push(to_file(&output.format, writer).with_filter(filter).boxed()),
                Err(reason) => warnings.push(reason),
            },
        }
    }
    // A second start in one process keeps the first one's logging.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    (!warnings.is_empty()).then(|| warnings.join("; "))
}

type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn console(format: &LogFormat) -> AnyLayer {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Plain => layer.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => layer.json().boxed(),
        LogFormat::Lines(format) => {
            let lines = Lines::new(format.clone()).with_colours();
            layer.with_ansi(false).fmt_fields(PlainFields::default()).event_format(lines).boxed()
        }
    }
}

fn to_file(format: &LogFormat, writer: Writer) -> AnyLayer {
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Mutex::new(writer));
    match format {
        LogFormat::Plain => layer.fmt_fields(PlainFields::default()).boxed(),
        LogFormat::Json => layer.json().boxed(),
        LogFormat::Lines(format) => {
            layer.fmt_fields(PlainFields::default()).event_format(Lines::new(format.clone())).boxed()
        }
    }
}

/// Fields without colours. The fields of a span are formatted once for all outputs of a kind: a file's must not be
/// those of a terminal.
#[derive(Debug, Default)]
struct PlainFields(DefaultFields);

impl<'w> FormatFields<'w> for PlainFields {
    fn format_fields<R: RecordFields>(&self, writer: FieldWriter<'w>, fields: R) -> fmt::Result {
        self.0.format_fields(writer, fields)
    }
}

/// Our own words from a level on, of libraries what is worse than usual, and what the loggers say where they say more
/// exactly. An output never takes what is below its level.
fn filter(level: LevelFilter, root: LevelFilter, loggers: &[(String, LevelFilter)]) -> Targets {
    let usual = level.min(root);
    let ours = OURS.map(|name| (name, usual));
    let filter = Targets::new().with_default(usual.min(LevelFilter::WARN)).with_targets(ours);
    loggers.iter().fold(filter, |filter, (name, of_logger)| filter.with_target(name, (*of_logger).min(level)))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn loggers_say_more_exactly_and_outputs_never_take_more_than_their_level() {
        let loggers = [("collector::http".to_owned(), LevelFilter::DEBUG), ("hyper".to_owned(), LevelFilter::INFO)];
        let all = filter(LevelFilter::TRACE, LevelFilter::INFO, &loggers);
        assert!(all.would_enable("collector::http::pages", &Level::DEBUG));
        assert!(!all.would_enable("collector::worker", &Level::DEBUG));
        assert!(all.would_enable("collector::worker", &Level::INFO));
        assert!(all.would_enable("hyper::client", &Level::INFO) && !all.would_enable("h2", &Level::INFO));
        let warnings = filter(LevelFilter::WARN, LevelFilter::INFO, &loggers);
        assert!(!warnings.would_enable("collector::http", &Level::INFO));
        assert!(warnings.would_enable("collector::http", &Level::WARN));
        let errors = filter(LevelFilter::TRACE, LevelFilter::ERROR, &loggers);
        assert!(!errors.would_enable("h2", &Level::WARN) && !errors.would_enable("sink", &Level::WARN));
    }
}
