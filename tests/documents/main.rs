//! The documentation is true: links and anchors, make targets, settings, commands, manifests, and
//! paths.
//!
//! `document` parses a document, `repository` compares it with the repository. The effects of commands
//! are shown by the tests that run them, which [`COMMANDS_RUN`] lists. A block whose commands no test
//! can run is marked: `<!-- not tested: needs wash -->` in the line before it.

// Guarantees: G58

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod document;
mod guarantees;
mod repository;

use std::fs;

use kvredis::testing::setting_names;

use document::Document;
use repository::{Repository, root};

/// The test program that runs blocks of documents verbatim.
const DOCUMENTED: &str = "tests/provider/documented.rs";

/// The way in which a documented command is run.
pub enum RunBy {
    /// By a test in [`DOCUMENTED`] that runs the block of this page that begins so.
    Block(&'static str, &'static str),
    /// By a test function in this file that contains this call.
    Test(&'static str, &'static str),
    /// By this line of a script or workflow of CI.
    Line(&'static str, &'static str),
}

/// The beginnings of the documented commands that are run.
pub const COMMANDS_RUN: &[(&str, RunBy)] = &[
    (
        "redis-cli --scan",
        RunBy::Block("docs/buckets.md", "redis-cli --scan"),
    ),
    (
        "while IFS= read -r key; do redis-cli RENAMENX",
        RunBy::Block("docs/buckets.md", "redis-cli --scan"),
    ),
    (
        "redis-cli ACL SETUSER orders",
        RunBy::Block("docs/topologies.md", "redis-cli ACL SETUSER orders"),
    ),
    (
        "redis-cli CONFIG SET",
        RunBy::Block("docs/watching.md", "redis-cli CONFIG SET"),
    ),
    (
        "make demo",
        RunBy::Line(".github/workflows/ci.yml", "- run: make demo CHECK=1"),
    ),
    ("make test", RunBy::Line(".ci/run", "step tests make test")),
    (
        "make lint",
        RunBy::Line(".ci/run", "step 'format, clippy' make lint"),
    ),
    (
        "kvredis check",
        RunBy::Test("tests/commands/check.rs", "check(&[&redis.url(), "),
    ),
];

/// The documents outside `docs/`.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "examples/counter/README.md",
    "examples/watcher/README.md",
    "lattice/README.md",
];

fn documents() -> Vec<Document> {
    let pages = fs::read_dir(root().join("docs")).unwrap();
    let pages = pages.map(|page| page.unwrap().file_name().into_string().unwrap());
    let pages = pages.filter(|page| page.ends_with(".md"));
    let pages = pages.map(|page| Document::read(format!("docs/{page}")));
    DOCUMENTS
        .iter()
        .map(|path| Document::read(*path))
        .chain(pages)
        .collect()
}

#[test]
fn documents_match_the_repository() {
    let documents = documents();
    let repository = Repository::read(&documents);
    let faults: Vec<String> = documents
        .iter()
        .flat_map(|document| {
            let of_document = repository.faults_of(document).into_iter();
            of_document.map(|fault| format!("{}: {fault}", document.path.display()))
        })
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Every listed command is in a document, and its test or CI line runs it.
#[test]
fn listed_commands_are_documented_and_run() {
    let read = |path: &str| {
        let text = fs::read_to_string(root().join(path));
        text.unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let documented: Vec<String> = documents()
        .iter()
        .flat_map(|document| document.commands().map(|(command, _)| command))
        .collect();
    for (command, run_by) in COMMANDS_RUN {
        assert!(
            documented.iter().any(|line| line.starts_with(command)),
            "no document shows `{command}`"
        );
        match run_by {
            RunBy::Block(page, beginning) => {
                let call = format!("run(\"{page}\", \"{beginning}\", ");
                assert!(
                    calls_in_tests(&read(DOCUMENTED), &call),
                    "no test in {DOCUMENTED} calls {call}"
                );
                let page_text = read(page);
                let blocks = page_text.split("```console\n").skip(1);
                let mut blocks = blocks.filter_map(|block| block.split("\n```").next());
                let block = blocks.find(|block| block.starts_with(&format!("$ {beginning}")));
                let block = block.unwrap_or_else(|| panic!("{page} has no block {beginning}"));
                let prompt = format!("$ {command}");
                assert!(
                    block.lines().any(|line| line.starts_with(&prompt)),
                    "the block of {page} that is run does not contain `{command}`"
                );
            }
            RunBy::Test(path, call) => assert!(
                calls_in_tests(&read(path), call),
                "no test in {path} contains {call}"
            ),
            RunBy::Line(path, line) => {
                assert!(
                    read(path).lines().any(|found| found.trim() == *line),
                    "{path} has no line `{line}`"
                );
                assert!(line.contains(command), "`{line}` does not run `{command}`");
            }
        }
    }
}

#[test]
fn calls_outside_of_tests_run_no_command() {
    let text = "fn helper() {\n    run(1);\n}\n\n#[test]\nfn test() {\n    run(2);\n}\n\nfn other() {\n    run(3);\n}\n";
    assert!(calls_in_tests(text, "run(2)"));
    assert!(!calls_in_tests(text, "run(1)") && !calls_in_tests(text, "run(3)"));
}

/// Returns true if the body of a test function in the source text contains this call.
fn calls_in_tests(source: &str, call: &str) -> bool {
    source
        .split("#[tokio::test")
        .flat_map(|part| part.split("#[test]"))
        .skip(1)
        .filter_map(|part| part.split("\n}\n").next())
        .any(|body| body.contains(call))
}

// Guarantees: G23
#[test]
fn the_readme_links_every_page_and_every_setting_is_documented() {
    let readme = Document::read("README.md");
    for page in fs::read_dir(root().join("docs")).unwrap() {
        let page = format!("docs/{}", page.unwrap().file_name().to_str().unwrap());
        let shown = readme.links.contains(&page) || !page.ends_with(".md");
        assert!(shown, "README.md has no link to {page}");
    }
    let page = fs::read_to_string(root().join("docs/settings.md")).unwrap();
    for name in setting_names() {
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/settings.md does not explain {name}"
        );
    }
}

#[test]
fn faults_of_documents_are_detected() {
    let text = "# A heading: `code`\n\n[a](#a-heading-code) [b](#none) [c](docs/none.md) \
                `make nothing` `make test CHECK=1` `src/none.rs` `src/lib.rs`\n\n\
                | setting | |\n|---|---|\n| `URL` | `TTL_MS=1` |\n| `URI` | `TTL_S=1` |\n\n\
                ```console\n$ rm -r /\n$ make test\noutput\n```\n\n\
                <!-- not tested: destructive -->\n```console\n$ rm -r /\n```\n\n\
                ```console\n$ ls\n```\n\n\
                ```yaml\nproperties:\n  PREFIKS: a\n```\n\n\
                ```yaml\nkind: Application\n# …\n  name: kvredis-counter\n```\n\n\
                ```rust\n//! kvredis: none\n```\n";
    let document = Document::parse("README.md".into(), text);
    let repository = Repository::read(std::slice::from_ref(&document));
    let faults = repository.faults_of(&document);
    let expected = [
        "the link #none: no such heading",
        "the link docs/none.md leads nowhere",
        "`rm -r /` is neither tested nor marked as untested",
        "`ls` is neither tested nor marked as untested",
        "the Makefile has no target nothing",
        "unknown setting URI",
        "unknown setting TTL_S",
        "unknown setting PREFIKS",
        "no manifest has these lines:\nproperties:\n  PREFIKS: a\n",
        "no source has these lines:\n//! kvredis: none\n",
        "missing file src/none.rs",
    ];
    assert_eq!(faults, expected);
}
