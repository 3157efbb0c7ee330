//! Every command says how it is used, and what it says is true.

use clap::{Command, CommandFactory};

use super::*;

/// All commands that do something, with the words that lead to them.
fn commands() -> Vec<(String, Command)> {
    fn below(path: &str, command: &Command, all: &mut Vec<(String, Command)>) {
        all.push((path.to_owned(), command.clone()));
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            below(&format!("{path} {}", sub.get_name()), sub, all);
        }
    }
    let mut all = Vec::new();
    below("coordinator", &Cli::command(), &mut all);
    all
}

/// The examples of a command's help: the lines that begin with the program, without what stands after two spaces.
fn examples(command: &Command) -> Vec<String> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let lines = help.lines().filter_map(|line| line.strip_prefix("  coordinator"));
    lines.map(|line| format!("coordinator{}", line.split("  ").next().unwrap_or(line))).collect()
}

/// The words of a shell's line: up to a redirection or pipe, with quotes that keep together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match letter {
            '\'' | '"' if quote.is_none() => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            letter if quote == Some(letter) => quote = None,
            '>' | '|' if quote.is_none() && word.is_none() => break,
            ' ' if quote.is_none() => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_has_examples_that_are_right() {
    let all = commands();
    assert!(all.len() > 20, "{}", all.len());
    let mut wrong = Vec::new();
    for (path, command) in &all {
        // One that only leads to others may leave the examples to them, and the other way round.
        let near = |other: &str| path.starts_with(&format!("{other} ")) || other.starts_with(&format!("{path} "));
        let own = examples(command);
        let shown = all.iter().filter(|(other, _)| near(other)).flat_map(|(_, other)| examples(other));
        let shown: Vec<String> = shown.filter(|example| example.starts_with(path.as_str())).collect();
        if own.is_empty() && shown.is_empty() {
            wrong.push(format!("`{path} --help` shows no example"));
        }
        for example in own {
            if let Err(error) = Cli::try_parse_from(words(&example)) {
                wrong.push(format!("`{path} --help` shows {example:?}, which is wrong: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_shell_completes_all_commands() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "coordinator", &mut script);
        let script = String::from_utf8(script).unwrap();
        for (path, _) in commands() {
            let name = path.rsplit(' ').next().unwrap_or(&path);
            assert!(script.contains(name), "{shell} does not complete {path}");
        }
    }
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_version_says_how_it_was_built() {
    let version = Cli::command().get_version().unwrap_or_default().to_owned();
    let (number, build) = version.split_once(' ').unwrap_or((&version, "()"));
    assert_eq!(number, env!("CARGO_PKG_VERSION"));
    assert!(build.starts_with('(') && build.ends_with(')'), "{version}");
}
