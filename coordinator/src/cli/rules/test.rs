//! `coordinator rules test`: runs the tests that stand in rule files.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use evaluator::rule::{Pack, Rule, RuleError, TestFailure, read_files, run_tests, untested};
use serde::Serialize;

use super::known::{Sources, refused};
use super::{Done, INCOMPLETE, USAGE, counted, print, print_json};

const EXAMPLES: &str = "\
Examples:
  coordinator rules test                        the built-in rules
  coordinator rules test -c cloudmarker.yaml    and those of a configuration
  coordinator rules test rules/ my_rule.yaml    files, and all `.yaml` files below folders

Exit codes: 0 all tests pass; 2 a rule is broken or cannot be read; 3 a test fails.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TestArgs {
    /// Rule files and folders, instead of the built-in rules.
    #[arg(value_name = "PATH", conflicts_with = "config")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    sources: Sources,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// What the tests came to.
#[derive(Debug, Default, Serialize)]
struct Tested {
    rules: usize,
    tests: usize,
    failures: Vec<TestFailure>,
    /// What no test of a rule expects.
    untested: Vec<Untested>,
    /// Rules that are broken.
    broken: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Untested {
    rule: String,
    expect: Vec<&'static str>,
}

pub(super) fn main(args: &TestArgs) -> Done {
    let mut tested = Tested::default();
    if args.paths.is_empty() {
        let pack = args.sources.pack()?;
        pack.rules().for_each(|rule| tested.run(rule));
    } else {
        let texts = read_files(&args.paths).map_err(refused)?;
        for text in &texts {
            match Rule::parse(&text.file, &text.text) {
                Ok(rule) => tested.run(&Arc::new(rule)),
                Err(error) => tested.broken.push(error.to_string()),
            }
        }
        if tested.broken.is_empty() {
            // What is wrong with them only together: two of one id.
            tested.broken = clashes(Pack::default().with(&texts).err());
        }
    }
    for error in &tested.broken {
        eprintln!("error: {error}");
    }
    let printed = if args.json { print_json(&tested)? } else { print(&tested.in_words()) };
    Ok(match &tested {
        Tested { broken, .. } if !broken.is_empty() => ExitCode::from(USAGE),
        Tested { failures, .. } if !failures.is_empty() => ExitCode::from(INCOMPLETE),
        _ => printed,
    })
}

fn clashes(errors: Option<Vec<RuleError>>) -> Vec<String> {
    errors.unwrap_or_default().iter().map(ToString::to_string).collect()
}

impl Tested {
    fn run(&mut self, rule: &Arc<Rule>) {
        let (tests, failures) = run_tests(rule);
        self.rules += 1;
        self.tests += tests;
        self.failures.extend(failures);
        let expect = untested(rule);
        if !expect.is_empty() {
            self.untested.push(Untested { rule: rule.id.clone(), expect });
        }
    }

    fn in_words(&self) -> String {
        let mut lines: Vec<String> = self.failures.iter().map(|failure| format!("FAILED {failure}")).collect();
        let missing =
            |untested: &Untested| format!("  - {}: no test expects {}", untested.rule, untested.expect.join(", "));
        lines.extend(self.untested.iter().map(missing));
        let outcome = match self.failures.len() {
            0 if self.tests == 0 => "nothing is tested".to_owned(),
            0 => "all pass".to_owned(),
            failed => format!("{failed} failed"),
        };
        lines.push(format!("{}, {}: {outcome}", counted(self.rules, "rule"), counted(self.tests, "test")));
        lines.join("\n") + "\n"
    }
}
