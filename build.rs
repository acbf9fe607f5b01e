//! Sets the version that `kvredis --version` prints: the package's version and the commit of the build.
//!
//! The commit comes from the package's own `.git`, or from `KVREDIS_COMMIT` for builds without a
//! repository, such as those of containers and distributions. Without either, it is left out.

use std::env;
use std::path::Path;
use std::process::Command;

/// Long enough to be unambiguous in any repository.
const HASH_DIGITS: &str = "12";

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

/// The commit, if the package is the root of a repository: the sources of a release may be unpacked
/// within an unrelated repository.
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
    // HEAD changes when another branch is checked out, its log with every commit. Cargo would rerun
    // this script in every build if one of the files did not exist.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file]);
        let path = path.map(|path| Path::new(&root).join(path));
        if let Some(path) = path.filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", &format!("--short={HASH_DIGITS}"), "HEAD"])
}
