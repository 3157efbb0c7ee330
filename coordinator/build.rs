//! Tells the program which commit it was built of, for `--version`.
//!
//! `CM_COMMIT` says it where the sources have no history, such as in a container's build. Otherwise git is asked, in
//! release builds alone: others would be built anew with each commit, for nothing. Without either, the version stands
//! alone.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=CM_COMMIT");
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let named = std::env::var("CM_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = named.or_else(|| if is_release { of_git() } else { None });
    let text = match (commit, is_release) {
        (Some(commit), _) => format!("{version} ({commit})"),
        (None, true) => version,
        (None, false) => format!("{version} (debug build)"),
    };
    println!("cargo::rustc-env=CM_VERSION={text}");
}

/// The commit of the repository whose sources these are. An unpacked archive may lie in the repository of something
/// else.
fn of_git() -> Option<String> {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    let workspace = here.parent()?.canonicalize().ok()?;
    let top = git(&workspace, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != workspace {
        return None;
    }
    let head = git(&workspace, &["rev-parse", "--git-path", "HEAD"])?;
    println!("cargo::rerun-if-changed={}", workspace.join(head).display());
    if let Some(branch) = git(&workspace, &["symbolic-ref", "-q", "HEAD"]) {
        for file in [branch.as_str(), "packed-refs"] {
            let path = workspace.join(git(&workspace, &["rev-parse", "--git-path", file])?);
            // A file that is not there would have it built anew each time.
            if path.exists() {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
    }
    git(&workspace, &["rev-parse", "--short=12", "HEAD"])
}

fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
