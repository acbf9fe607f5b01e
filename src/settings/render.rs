//! The settings as tables for people: on a terminal, and in the documentation, where `make readme`
//! writes them between [`BEGIN`] and [`END`].

use std::fmt::Write as _;

use comfy_table::{ColumnConstraint, Table, Width, presets};

use crate::settings::catalog::{self, Scope, SettingInfo};
use crate::settings::definition::Secrecy;

/// The lines around the tables in the documentation.
const BEGIN: &str = "<!-- settings: begin -->";
const END: &str = "<!-- settings: end -->";

/// The maximum widths of the widest columns on a terminal.
const EXAMPLE_WIDTH: u16 = 30;
const MEANING_WIDTH: u16 = 60;

impl Secrecy {
    fn as_str(self) -> &'static str {
        match self {
            Self::Public => "no",
            Self::MayContainPassword => "with a password",
            Self::Secret => "yes",
        }
    }
}

/// The table for a terminal.
pub(crate) fn table() -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["NAME", "DEFAULT", "SCOPE", "SECRET", "EXAMPLE", "MEANING"]);
    for setting in catalog::all() {
        table.add_row([
            setting.name,
            setting.default,
            setting.scope.as_str(),
            setting.secrecy.as_str(),
            setting.any_example().unwrap_or_default(),
            setting.meaning,
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
    let settings = catalog::all();
    let (of_links, of_provider): (Vec<&SettingInfo>, Vec<&SettingInfo>) = settings
        .iter()
        .partition(|setting| setting.scope == Scope::Link);
    format!(
        "{BEGIN}\n{}\nFor the whole process, in the provider's own configuration:\n\n{}{END}\n",
        markdown_table(&of_links),
        markdown_table(&of_provider),
    )
}

fn markdown_table(settings: &[&SettingInfo]) -> String {
    let mut table = "| name | default | meaning |\n|---|---|---|\n".to_owned();
    for setting in settings {
        let default = match setting.default {
            "" => String::new(),
            default => format!("`{default}` "),
        };
        let example = match setting.example {
            "" => String::new(),
            example => format!("; for example `{example}`"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "| `{}` | {default}| {}{example} |",
            setting.name, setting.meaning
        );
    }
    table
}
