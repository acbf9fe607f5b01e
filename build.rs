//! Gives the program the version that `kvredis --version` prints: that of the package, and the
//! commit it was built from.
//!
//! The commit is that of the package's own `.git`, else what `KVREDIS_COMMIT` says (a build without
//! a repository: a container, a package of a distribution), else it is left out.

use std::env;
use std::path::Path;
use std::process::Command;

/// Digits of a commit's hash: enough to be alone in any repository.
const DIGITS: &str = "12";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KVREDIS_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = own_commit().or_else(|| env::var("KVREDIS_COMMIT").ok());
    let version = match commit.as_deref().map(str::trim) {
        None | Some("") => version,
        Some(commit) => format!("{version} ({commit})"),
    };
    println!("cargo::rustc-env=KVREDIS_VERSION={version}");
}

/// The commit, where the package is the root of a repository: one that is unpacked within another
/// repository is none of its commits.
fn own_commit() -> Option<String> {
    let root = env::var("CARGO_MANIFEST_DIR").ok()?;
    if !Path::new(&root).join(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(&root)
            .args(arguments)
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    // HEAD names a branch or a commit; where a branch moves, the log of HEAD says so. A file that
    // does not exist would have this run again with every build.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file]);
        let path = path.map(|path| Path::new(&root).join(path));
        if let Some(path) = path.filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", &format!("--short={DIGITS}"), "HEAD"])
}
