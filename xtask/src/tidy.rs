//! `cargo xtask tidy`: the style that a machine can check.
//!
//! Arrows between crates, sizes of files and functions, a purpose on top of each file, licences of what we depend on,
//! and nothing of anybody's machine in the tree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Lines of a file.
const FILE_LINES_MAX: usize = 400;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;

/// Which crate may import which of ours.
const ARROWS: &[(&str, &[&str])] = &[
    ("tidings-core", &[]),
    ("tidings-log", &["tidings-core"]),
    ("tidings-egress", &["tidings-core"]),
    ("tidings-emit", &["tidings-core"]),
    ("tidings-sinks", &["tidings-core", "tidings-egress"]),
    ("tidings-sources", &["tidings-core", "tidings-log"]),
    ("tidings-rigs", &[]),
    ("tidings-engine", &["tidings-core", "tidings-log", "tidings-sinks"]),
    (
        "tidings",
        &["tidings-core", "tidings-egress", "tidings-engine", "tidings-log", "tidings-sinks", "tidings-sources"],
    ),
    ("tidings-bench", &["tidings-engine", "tidings-rigs"]),
    ("tidings-sim", &["tidings-core", "tidings-engine", "tidings-log", "tidings-sinks"]),
    ("xtask", &["tidings-rigs"]),
];

/// Inside the binary: a folder, and what it never names.
const INNER_ARROWS: &[(&str, &[&str])] = &[
    ("crates/gateway/src/control", &["crate::api", "crate::serve"]),
    ("crates/gateway/src/api", &["crate::serve", "crate::cli"]),
    ("crates/core/src", &["std::fs", "std::net", "SystemTime::now", "Instant::now", "tokio::"]),
];

/// Module names that say nothing.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "service", "misc"];

/// What belongs to somebody's machine and not to the project. Split, so that this file passes its own check.
const FOREIGN: &[(&str, &str)] =
    &[("/wo", "rk/"), ("/ro", "ot/"), ("/ho", "me/"), ("static.crates", ".io"), ("pypi", ".org"), ("npmjs", ".org")];

/// Runs all checks; an error lists what was found.
pub(crate) fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has a parent folder")?;
    let mut findings = Vec::new();
    let files = tracked(root)?;
    let sources: Vec<&PathBuf> = files.iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect();
    for path in &sources {
        let text = std::fs::read_to_string(root.join(path))?;
        source(path, &text, &mut findings);
    }
    for path in &files {
        foreign(root, path, &mut findings);
    }
    let metadata = metadata(root)?;
    arrows(&metadata, &mut findings)?;
    licences(root, &metadata, &mut findings)?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing to say", files.len());
        return Ok(());
    }
    bail!("tidy: {} findings", findings.len())
}

fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git ls-files")?;
    let names = String::from_utf8(listed.stdout).context("file names are UTF-8")?;
    Ok(names.lines().map(PathBuf::from).filter(|path| root.join(path).is_file()).collect())
}

fn source(path: &Path, text: &str, findings: &mut Vec<String>) {
    let shown = path.display();
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > FILE_LINES_MAX {
        findings.push(format!("{shown}: {} lines, at most {FILE_LINES_MAX}", lines.len()));
    }
    if !text.starts_with("//!") {
        findings.push(format!("{shown}: begins without its purpose (`//!`)"));
    }
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if EMPTY_NAMES.contains(&stem) {
        findings.push(format!("{shown}: `{stem}` says nothing; name the noun"));
    }
    for (folder, forbidden) in INNER_ARROWS {
        let inside = path.with_extension("").starts_with(folder);
        for name in forbidden.iter().filter(|name| inside && text.contains(**name)) {
            findings.push(format!("{shown}: names `{name}`, which {folder} must not know"));
        }
    }
    // A test's cases are data, as long as they need to be.
    if !path.components().any(|part| part.as_os_str() == "tests") {
        functions(path, &lines, findings);
    }
}

/// A function ends at the first closing brace at its own indentation.
fn functions(path: &Path, lines: &[&str], findings: &mut Vec<String>) {
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        let words: Vec<&str> = body.split_whitespace().take(5).collect();
        let is_function = words.contains(&"fn") && !body.starts_with("//") && !body.ends_with(';');
        if !is_function || body.ends_with('}') {
            continue;
        }
        // A declaration without a body, over several lines.
        if lines[start..].iter().find(|line| line.ends_with(['{', ';'])).is_some_and(|line| line.ends_with(';')) {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|line| *line == closing).unwrap_or(0) + 1;
        if length > FUNCTION_LINES_MAX {
            findings.push(format!(
                "{}:{}: a function of {length} lines, at most {FUNCTION_LINES_MAX}",
                path.display(),
                start + 1
            ));
        }
    }
}

fn foreign(root: &Path, path: &Path, findings: &mut Vec<String>) {
    let Ok(text) = std::fs::read_to_string(root.join(path)) else { return };
    for (number, line) in text.lines().enumerate() {
        for (head, tail) in FOREIGN {
            let name = format!("{head}{tail}");
            if line.contains(&name) && path.file_name().is_some_and(|name| name != "Cargo.lock") {
                findings.push(format!("{}:{}: names `{name}`", path.display(), number + 1));
            }
        }
    }
}

fn metadata(root: &Path) -> Result<serde_json::Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn packages(metadata: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn arrows(metadata: &serde_json::Value, findings: &mut Vec<String>) -> Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for package in packages(metadata).filter(|package| package["source"].is_null()) {
        let name = package["name"].as_str().context("a package has a name")?;
        let Some(allowed) = allowed.get(name) else {
            findings.push(format!("{name}: a crate without a line in xtask's ARROWS"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let ours = dependencies.filter(|dependency| dependency["source"].is_null() && dependency["kind"].is_null());
        for dependency in ours.filter_map(|dependency| dependency["name"].as_str()) {
            if !allowed.contains(&dependency) {
                findings.push(format!("{name} -> {dependency}: this arrow is not allowed"));
            }
        }
    }
    Ok(())
}

/// Every dependency is under one of the licences that `deny.toml` allows.
fn licences(root: &Path, metadata: &serde_json::Value, findings: &mut Vec<String>) -> Result<()> {
    let deny = std::fs::read_to_string(root.join("deny.toml")).context("deny.toml")?;
    let allowed: Vec<&str> = deny
        .lines()
        .skip_while(|line| !line.starts_with("allow = ["))
        .skip(1)
        .take_while(|line| !line.starts_with(']'))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    for package in packages(metadata) {
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        let fits = |expression: &str| {
            expression.split(" AND ").all(|term| allowed.contains(&term.trim().trim_matches(['(', ')'])))
        };
        if !licence.split(" OR ").any(fits) {
            findings.push(format!("{}: licence `{licence}` is not allowed by deny.toml", package["name"]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        source(Path::new(path), text, &mut findings);
        findings
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let long_file = format!("//! Purpose.\n{}", "\n".repeat(FILE_LINES_MAX));
        let long_function = format!("//! Purpose.\nfn f() {{\n{}}}\n", "    let _ = 1;\n".repeat(FUNCTION_LINES_MAX));
        let cases = [
            ("crates/core/src/a.rs", "fn main() {}\n", "purpose"),
            ("crates/core/src/a.rs", long_file.as_str(), "lines"),
            ("crates/core/src/a.rs", long_function.as_str(), "function"),
            ("crates/core/src/utils.rs", "//! Purpose.\n", "says nothing"),
            ("crates/core/src/a.rs", "//! Purpose.\nuse std::net::IpAddr;\n", "must not know"),
            ("crates/gateway/src/control/a.rs", "//! Purpose.\nuse crate::api::x;\n", "must not know"),
        ];
        for (path, text, expected) in cases {
            let findings = check(path, text);
            assert!(findings.iter().any(|finding| finding.contains(expected)), "{path} {expected}: {findings:?}");
        }
    }

    #[test]
    fn good_source_has_no_findings() {
        assert_eq!(check("crates/core/src/a.rs", "//! Purpose.\n\nfn f() {\n}\n"), Vec::<String>::new());
    }
}
