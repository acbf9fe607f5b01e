//! docs/guarantees.md and the tests refer to each other: each promise names the tests that demonstrate
//! it, and each of those tests cites the promise's number.
//!
//! A test cites numbers in the line above its attributes, `// Guarantees: G3, G12`. The same line below
//! the first paragraph of a module, followed by an empty line, applies to all tests of the module; the
//! page then names the module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::repository::root;

const PAGE: &str = "docs/guarantees.md";
const CITATION: &str = "// Guarantees: ";

/// Names of tests and modules, with the numbers that each cites.
type Citations = BTreeMap<String, BTreeSet<String>>;

#[test]
fn guarantees_and_tests_refer_to_each_other() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let mut citations = Citations::new();
    read_folder(&root().join("tests"), "", &mut citations);
    read_folder(&root().join("lattice/tests"), "", &mut citations);
    assert!(citations.len() > 300, "{} tests found", citations.len());
    let faults = compare(&page, &citations);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn missing_references_between_guarantees_and_tests_are_found() {
    let page = "# Guarantees\n\n### G1: Values\n\nAny bytes.\n\n\
                Tests: `store::shown`,\n`store::silent`, `store::absent`.\n\n\
                ### G2: Keys\n\nAny text.\n\n### G2: Buckets\n\nTests: `store`.\n";
    let source = format!(
        "//! Values.\n\n{CITATION}G2, G3\n\nuse x;\n\n{CITATION}G1\n#[test]\nfn shown() {{}}\n\n\
         #[tokio::test]\nasync fn silent() {{}}\n\n{CITATION}G1\n#[test]\nfn unlisted() {{}}\n\n\
         fn helper() {{}}\n"
    );
    let mut citations = Citations::new();
    read_source("store", &source, &mut citations);
    let expected = [
        "G2 names no test",
        "G2 is defined twice",
        "G1 names store::absent, which does not exist",
        "store::silent does not cite G1",
        "store cites G3, which does not exist",
        "G1 does not name store::unlisted, which cites it",
    ];
    assert_eq!(compare(page, &citations), expected);
}

/// The references that are missing on either side.
fn compare(page: &str, citations: &Citations) -> Vec<String> {
    let mut faults = Vec::new();
    let mut guarantees: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for section in page.split("\n### ").skip(1) {
        let number = section.split(':').next().unwrap_or_default().to_owned();
        let tests = named_tests(section);
        if tests.is_empty() {
            faults.push(format!("{number} names no test"));
        }
        if guarantees.insert(number.clone(), tests).is_some() {
            faults.push(format!("{number} is defined twice"));
        }
    }
    for (number, tests) in &guarantees {
        for test in tests {
            match citations.get(test) {
                Some(cited) if cited.contains(number) => {}
                Some(_) => faults.push(format!("{test} does not cite {number}")),
                None => faults.push(format!("{number} names {test}, which does not exist")),
            }
        }
    }
    for (test, numbers) in citations {
        for number in numbers {
            match guarantees.get(number) {
                Some(tests) if tests.contains(test) => {}
                Some(_) => faults.push(format!("{number} does not name {test}, which cites it")),
                None => faults.push(format!("{test} cites {number}, which does not exist")),
            }
        }
    }
    faults
}

/// The names in backquotes of the paragraph that begins with `Tests:`.
fn named_tests(section: &str) -> BTreeSet<String> {
    let paragraphs = section.split("\n\n");
    let mut paragraphs = paragraphs.filter_map(|paragraph| paragraph.strip_prefix("Tests: "));
    let names = paragraphs.next().unwrap_or_default().split('`');
    names.skip(1).step_by(2).map(str::to_owned).collect()
}

/// Reads the tests of a folder; `module` is the path of its module, empty for the folder of programs.
fn read_folder(folder: &Path, module: &str, citations: &mut Citations) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let child = match (module, stem) {
            (_, "main" | "mod") => module.to_owned(),
            ("", _) => stem.to_owned(),
            _ => format!("{module}::{stem}"),
        };
        if path.is_dir() {
            read_folder(&path, &child, citations);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            read_source(&child, &fs::read_to_string(&path).unwrap(), citations);
        }
    }
}

/// Reads the tests of one module.
fn read_source(module: &str, source: &str, citations: &mut Citations) {
    citations.entry(module.to_owned()).or_default();
    let mut cited = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if let Some(numbers) = line.strip_prefix(CITATION) {
            cited = numbers.split(", ").map(str::to_owned).collect();
        } else if line == "#[test]" || (line.starts_with("#[tokio::test") && line.ends_with(']')) {
            is_test = true;
        } else if let Some(after) = line.split_once("fn ").map(|(_, after)| after)
            && is_test
        {
            let name = after.split('(').next().unwrap_or_default();
            citations.insert(format!("{module}::{name}"), std::mem::take(&mut cited));
            is_test = false;
        } else if line.is_empty() && !cited.is_empty() {
            let numbers = std::mem::take(&mut cited);
            citations
                .entry(module.to_owned())
                .or_default()
                .extend(numbers);
        }
    }
}
