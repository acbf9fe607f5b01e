//! The parts of the repository that documents refer to, and the faults of a document.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use kvredis::testing::setting_names;

use crate::COMMANDS_RUN;
use crate::document::{Document, is_capitals};

/// The folders of manifests and other YAML files, parts of which documents show.
const YAML: &[&str] = &[".", "examples", "deploy", ".github"];

/// The prefixes of names in capitals that are not settings of kvredis.
const OTHER_NAMES: &[&str] = &[
    "OTEL_",
    "FLAMEGRAPH_",
    "WASMCLOUD_",
    "WASH_",
    "RUST_",
    "SSL_",
    "KVREDIS_",
    "LATTICE_",
    "REDIS_",
    "NATS_",
    "FUZZ_",
    "GITHUB_",
    "CARGO_",
    "SOURCE_",
    "NO_COLOR",
    "SECRET_",
];

/// The parts of the repository that documents refer to.
pub struct Repository {
    documents: HashMap<PathBuf, HashSet<String>>,
    targets: HashSet<String>,
    settings: HashSet<&'static str>,
    /// The lines of every manifest.
    yaml: Vec<Vec<String>>,
    /// The lines of every source file.
    rust: Vec<Vec<String>>,
}

impl Repository {
    /// Reads the repository; links may lead to the headings of these documents.
    pub fn read(documents: &[Document]) -> Self {
        let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
        Self {
            documents: documents
                .iter()
                .map(|document| (document.path.clone(), document.anchors.clone()))
                .collect(),
            targets: makefile
                .lines()
                .filter(|line| line.contains("## "))
                .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
                .collect(),
            settings: setting_names().collect(),
            yaml: YAML
                .iter()
                .flat_map(|folder| lines_in(&root().join(folder), &["yaml", "yml"]))
                .collect(),
            rust: lines_in(&root().join("src"), &["rs"]),
        }
    }

    /// The faults of a document, as messages for its author.
    pub fn faults_of(&self, document: &Document) -> Vec<String> {
        let links = document.links.iter();
        let mut faults: Vec<String> = links
            .filter_map(|link| self.fault_of_link(document, link))
            .collect();
        for (command, untested) in document.commands() {
            let mut runs = COMMANDS_RUN.iter();
            if !(untested || runs.any(|(run, ..)| command.starts_with(run))) {
                faults.push(format!(
                    "`{command}` is neither tested nor marked as untested"
                ));
            }
        }
        let commands = document.commands().map(|(command, _)| command);
        let codes = document.codes.iter().chain(&document.cells);
        for target in codes
            .clone()
            .cloned()
            .chain(commands)
            .flat_map(make_targets)
        {
            if !self.targets.contains(&target) {
                faults.push(format!("the Makefile has no target {target}"));
            }
        }
        let in_cells = document.cells.iter().filter_map(|code| underscored(code));
        let in_yaml = document.yaml().flat_map(|block| capital_keys(&block.text));
        let rows = document.rows.iter().cloned();
        for name in rows.chain(in_cells.map(str::to_owned)).chain(in_yaml) {
            if !self.is_name(&name) {
                faults.push(format!("unknown setting {name}"));
            }
        }
        for block in document.yaml() {
            if !block.untested && !has_lines(&self.yaml, &block.text) {
                faults.push(format!("no manifest has these lines:\n{}", block.text));
            }
        }
        for block in document.rust() {
            if !has_lines(&self.rust, &block.text) {
                faults.push(format!("no source has these lines:\n{}", block.text));
            }
        }
        for path in codes.filter(|code| is_path(code)) {
            let beside = document.path.with_file_name("").join(path);
            if !root().join(path).exists() && !root().join(beside).exists() {
                faults.push(format!("missing file {path}"));
            }
        }
        faults
    }

    fn fault_of_link(&self, from: &Document, link: &str) -> Option<String> {
        if link.contains("://") || link.starts_with("mailto:") {
            return None;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() {
            from.path.clone()
        } else {
            normal(&from.path.with_file_name("").join(path))
        };
        if !root().join(&target).exists() {
            return Some(format!("the link {link} leads nowhere"));
        }
        let anchors = self.documents.get(&target);
        let there = anchor.is_empty() || anchors.is_some_and(|anchors| anchors.contains(anchor));
        (!there).then(|| format!("the link {link}: no such heading"))
    }

    fn is_name(&self, name: &str) -> bool {
        self.settings.contains(name) || OTHER_NAMES.iter().any(|other| name.starts_with(other))
    }
}

/// True if one file has these lines, in parts between lines of `# …`, at any indentation.
fn has_lines(files: &[Vec<String>], text: &str) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let parts: Vec<Vec<String>> = lines
        .split(|line| line.trim() == "# …")
        .map(without_indent)
        .collect();
    files.iter().any(|file| {
        parts.iter().all(|part| {
            let mut windows = file.windows(part.len().max(1));
            windows.any(|window| without_indent(window) == *part)
        })
    })
}

/// The root folder of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A path without `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut whole, part| {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            part => whole.push(part),
        }
        whole
    })
}

/// The targets of a `make` command; empty for other commands.
fn make_targets(code: String) -> Vec<String> {
    let words = code
        .split_whitespace()
        .take_while(|word| !word.starts_with('#'));
    match words.collect::<Vec<_>>().as_slice() {
        ["make", targets @ ..] => targets
            .iter()
            .filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
            .filter(|word| !word.starts_with('-'))
            .map(|word| (*word).to_owned())
            .collect(),
        _ => Vec::new(),
    }
}

/// The name in `LIKE_THIS` and `LIKE_THIS=value`, if it has an underscore as settings do.
fn underscored(code: &str) -> Option<&str> {
    let name = code.split('=').next()?;
    (name.contains('_') && is_capitals(name)).then_some(name)
}

/// The keys in capitals of YAML, and the names in capitals of its secrets.
fn capital_keys(yaml: &str) -> Vec<String> {
    let words = yaml.split(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | ','));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let keys = words.iter().filter_map(|word| word.strip_suffix(':'));
    let named = words
        .windows(2)
        .filter(|pair| pair[0] == "name:")
        .map(|pair| pair[1]);
    let found = keys.chain(named.map(|name| name.split('.').next().unwrap_or(name)));
    found
        .filter(|name| is_capitals(name) && name.len() > 2)
        .map(str::to_owned)
        .collect()
}

/// Returns true if text in code style is a path in the repository.
fn is_path(code: &str) -> bool {
    const FOLDERS: [&str; 10] = [
        "src/",
        "tests/",
        "test-support/",
        "docs/",
        "examples/",
        "scripts/",
        "lattice/",
        "benches/",
        "wit/",
        "fuzz/",
    ];
    FOLDERS.iter().any(|folder| code.starts_with(folder)) && !code.contains(['*', '<', ' ', '…'])
}

fn without_indent(lines: &[impl AsRef<str>]) -> Vec<String> {
    let filled = lines
        .iter()
        .map(AsRef::as_ref)
        .filter(|line| !line.trim().is_empty());
    let indent = filled
        .map(|line| line.len() - line.trim_start().len())
        .min()
        .unwrap_or(0);
    let cut = |line: &str| line.get(indent..).unwrap_or_default().to_owned();
    lines.iter().map(|line| cut(line.as_ref())).collect()
}

/// The lines of each file with one of these extensions; of the root folder without its subfolders.
fn lines_in(folder: &Path, extensions: &[&str]) -> Vec<Vec<String>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() && folder != root().join(".") && !path.ends_with("target") {
            found.extend(lines_in(&path, extensions));
        } else if path
            .extension()
            .is_some_and(|kind| extensions.iter().any(|extension| kind == *extension))
        {
            let text = fs::read_to_string(&path).unwrap();
            found.push(text.lines().map(str::to_owned).collect());
        }
    }
    found
}
