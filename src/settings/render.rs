//! The settings for people: as a table on a terminal, and as the table of the documentation, which
//! `make readme` writes between [`BEGIN`] and [`END`].

use std::fmt::Write as _;

use comfy_table::{ColumnConstraint, Table, Width, presets};

use crate::settings::definition::{Secrecy, SettingDefinition};
use crate::settings::definitions::{LINK_SETTINGS, PROVIDER_SETTINGS};

/// What stands before the table in the documentation.
pub(crate) const BEGIN: &str = "<!-- settings: begin -->";
/// What stands behind it.
pub(crate) const END: &str = "<!-- settings: end -->";

/// How wide the widest columns of the terminal's table may get.
const EXAMPLE_WIDTH: u16 = 30;
const MEANING_WIDTH: u16 = 60;

/// For what a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// For one link; the provider's own configuration may have it for all links.
    Link,
    /// For the process, in the provider's own configuration only.
    Provider,
}

/// A setting as it is shown, whichever it is.
#[derive(Debug)]
pub(crate) struct Row {
    /// The name, in capitals.
    pub(crate) name: &'static str,
    /// The default in words; empty where there is none.
    pub(crate) default: &'static str,
    /// The default, if it is a value that could be set.
    pub(crate) default_value: Option<&'static str>,
    /// What it means.
    pub(crate) meaning: &'static str,
    /// A value that says more than the default does; empty where none is needed.
    pub(crate) example: &'static str,
    /// Whether its value must not be seen by everybody.
    pub(crate) secrecy: Secrecy,
    /// For what it is.
    pub(crate) scope: Scope,
    /// The regular expression for what is accepted; `None` where anything is.
    pub(crate) pattern: Option<String>,
    /// The words to choose from, where there are such.
    pub(crate) words: &'static [&'static str],
}

impl Row {
    fn new<T>(definition: &SettingDefinition<T>, scope: Scope) -> Self {
        Self {
            name: definition.name,
            default: definition.default,
            default_value: definition.default_value(),
            meaning: definition.meaning,
            example: definition.example,
            secrecy: definition.secrecy,
            scope,
            pattern: definition.value.pattern(),
            words: definition.value.words(),
        }
    }

    /// A value that can be set; `None` where none should be written down.
    pub(crate) fn any_example(&self) -> Option<&'static str> {
        Some(self.example)
            .filter(|example| !example.is_empty())
            .or(self.default_value)
    }
}

impl Scope {
    /// In one word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Provider => "provider",
        }
    }
}

impl Secrecy {
    /// In a word or two.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Public => "no",
            Self::MayHoldPassword => "with a password",
            Self::Secret => "yes",
        }
    }
}

/// Every setting, in the order of the table.
pub(crate) fn rows() -> Vec<Row> {
    let of_links = LINK_SETTINGS.iter().map(|d| Row::new(d, Scope::Link));
    let of_provider = PROVIDER_SETTINGS
        .iter()
        .map(|d| Row::new(d, Scope::Provider));
    of_links.chain(of_provider).collect()
}

/// The table for a terminal.
pub(crate) fn table() -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["NAME", "DEFAULT", "SCOPE", "SECRET", "EXAMPLE", "MEANING"]);
    for row in rows() {
        table.add_row([
            row.name,
            row.default,
            row.scope.word(),
            row.secrecy.words(),
            row.any_example().unwrap_or_default(),
            row.meaning,
        ]);
    }
    for (column, width) in [(4, EXAMPLE_WIDTH), (5, MEANING_WIDTH)] {
        if let Some(column) = table.column_mut(column) {
            column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(width)));
        }
    }
    table.trim_fmt()
}

/// The tables of the documentation, from [`BEGIN`] to [`END`].
pub(crate) fn markdown() -> String {
    let rows = rows();
    let (of_links, of_provider): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| row.scope == Scope::Link);
    format!(
        "{BEGIN}\n{}\nFor the whole process, in the provider's own configuration:\n\n{}{END}\n",
        markdown_table(&of_links),
        markdown_table(&of_provider),
    )
}

fn markdown_table(rows: &[&Row]) -> String {
    let mut table = "| name | default | meaning |\n|---|---|---|\n".to_owned();
    for row in rows {
        let default = match row.default {
            "" => String::new(),
            default => format!("`{default}` "),
        };
        let example = match row.example {
            "" => String::new(),
            example => format!("; for example `{example}`"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "| `{}` | {default}| {}{example} |",
            row.name, row.meaning
        );
    }
    table
}
