//! `kvredis --help`, `--version`, and the message for a start without host data.

use std::path::Path;
use std::process::Command;

use crate::run::{kvredis, run};

#[tokio::test]
async fn help_has_examples_and_every_command() {
    let ran = kvredis(&["--help"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    for word in [
        "wasmCloud",
        "wash start provider",
        "check",
        "settings",
        "kvredis check redis://",
    ] {
        assert!(ran.out.contains(word), "no {word:?} in {}", ran.out);
    }
    assert!(!ran.out.contains("markdown"), "`--markdown` is hidden");
    let ran = kvredis(&["check", "--help"]).await;
    assert_eq!(ran.code, Some(0));
    for word in [
        "Examples",
        "PASSWORD_FILE",
        "--json",
        "findings",
        "Exit code",
    ] {
        assert!(ran.out.contains(word), "no {word:?} in {}", ran.out);
    }
    assert_eq!(kvredis(&["settings", "--help"]).await.code, Some(0));
}

#[tokio::test]
async fn the_version_includes_the_commit() {
    let ran = kvredis(&["--version"]).await;
    assert_eq!(ran.code, Some(0));
    let version = format!("kvredis {}", env!("CARGO_PKG_VERSION"));
    let mut git = Command::new("git");
    git.args(["rev-parse", "--short=12", "HEAD"]);
    git.current_dir(env!("CARGO_MANIFEST_DIR"));
    let commit = run(git).await.out;
    let is_root = Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists();
    if is_root && !commit.is_empty() {
        assert_eq!(ran.out, format!("{version} ({})\n", commit.trim()));
    } else {
        assert!(ran.out.starts_with(&version), "{}", ran.out);
    }
}

// Guarantees: G52
#[tokio::test]
async fn a_start_without_host_data_lists_the_commands() {
    let ran = kvredis(&[]).await;
    assert_eq!(ran.code, Some(2));
    assert_eq!(ran.out, "");
    for word in [
        "wash start provider",
        "kvredis check",
        "kvredis settings",
        "--help",
    ] {
        assert!(ran.err.contains(word), "no {word:?} in {}", ran.err);
    }
}
