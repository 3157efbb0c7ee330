//! Lists the rule files under `rules/`, so that adding a rule is adding a file. With each stand the names that it answers
//! to: a program compiles only the rules that it uses.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("rules");
    let mut files = Vec::new();
    find(&root, &mut files)?;
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string().replace('\\', "/");
        let text = fs::read_to_string(&file)?;
        let (id, class) = (top(&text, "id").unwrap_or_default(), top(&text, "class"));
        println!("cargo::rerun-if-changed={}", file.display());
        // Writing to a string cannot fail.
        let _ = writeln!(list, "    ({name:?}, {id:?}, {class:?}, include_str!({:?})),", file.display().to_string());
    }
    list.push(']');
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("built_in.rs"), list)
}

/// A plain word at the top of a YAML file. A test holds it against what the file says when it is read.
fn top<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(value.split(" #").next().unwrap_or_default().trim())
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    Ok(())
}
