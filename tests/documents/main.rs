//! What the documents say of the repository is true: links and anchors, make targets, settings,
//! commands, manifests, and paths.
//!
//! `document` reads a document, `repository` compares what it says with what is there. What a
//! command does is for the tests that run it; [`RUN_BY_TESTS`] says which do. A block whose commands
//! no test can run says so: `<!-- not tested: needs wash -->` in the line before it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod document;
mod repository;

use std::fs;
use std::path::Path;

use kvredis::testing::setting_names;

use document::Document;
use repository::{Repository, root};

/// The test that runs blocks of documents as they stand.
const DOCUMENTED: &str = "tests/provider/documented.rs";

/// Beginnings of commands that tests run: the file or folder with the test, and what it has in it.
pub const RUN_BY_TESTS: &[(&str, &str, &str)] = &[
    ("redis-cli --scan", DOCUMENTED, "docs/buckets.md"),
    (
        "while IFS= read -r key; do redis-cli RENAMENX",
        DOCUMENTED,
        "docs/buckets.md",
    ),
    (
        "redis-cli ACL SETUSER orders",
        DOCUMENTED,
        "docs/topologies.md",
    ),
    ("redis-cli CONFIG SET", DOCUMENTED, "docs/watching.md"),
    (
        "make demo",
        "lattice/tests/lattice/demo.rs",
        "local.wadm.yaml",
    ),
    ("make test", ".ci/run", "make test"),
    ("make lint", ".ci/run", "make lint"),
    ("make doc", ".ci/run", "make doc"),
    ("kvredis check", "tests/commands", "check"),
    ("kvredis settings", "tests/commands", "settings"),
    ("kvredis --version", "tests/commands", "--version"),
    ("kvredis --help", "tests/commands", "--help"),
];

/// Where documents are, besides `docs/`.
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
fn what_the_documents_say_is_there() {
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

#[test]
fn the_tests_that_run_the_commands_are_there() {
    fn has(path: &Path, evidence: &str) -> bool {
        if path.is_dir() {
            let mut files = fs::read_dir(path).unwrap();
            return files.any(|file| has(&file.unwrap().path(), evidence));
        }
        fs::read_to_string(path).is_ok_and(|text| text.contains(evidence))
    }
    for (command, path, evidence) in RUN_BY_TESTS {
        assert!(
            has(&root().join(path), evidence),
            "{path} does not run `{command}`"
        );
    }
}

#[test]
fn every_page_can_be_found_from_the_readme_and_every_setting_is_explained() {
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
fn faults_are_found() {
    let text = "# A heading: `code`\n\n[a](#a-heading-code) [b](#none) [c](docs/none.md) \
                `make nothing` `make test CHECK=1` `src/none.rs` `src/lib.rs`\n\n\
                | setting | |\n|---|---|\n| `URL` | `TTL_MS=1` |\n| `URI` | `TTL_S=1` |\n\n\
                ```console\n$ rm -r /\n$ make test\nan answer\n```\n\n\
                <!-- not tested: needs courage -->\n```console\n$ rm -r /\n```\n\n\
                ```console\n$ ls\n```\n\n\
                ```yaml\nproperties:\n  PREFIKS: a\n```\n\n\
                ```yaml\nkind: Application\n# …\n  name: kvredis-counter\n```\n";
    let document = Document::parse("README.md".into(), text);
    let repository = Repository::read(std::slice::from_ref(&document));
    let faults = repository.faults_of(&document);
    let expected = [
        "the link #none: there is no such heading",
        "the link docs/none.md leads nowhere",
        "no test runs `rm -r /`, and nothing says so",
        "no test runs `ls`, and nothing says so",
        "the Makefile has no target nothing",
        "there is no setting URI",
        "there is no setting TTL_S",
        "there is no setting PREFIKS",
        "no manifest has these lines:\nproperties:\n  PREFIKS: a\n",
        "there is no src/none.rs",
    ];
    assert_eq!(faults, expected);
}
