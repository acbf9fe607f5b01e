//! The settings for programs: a JSON schema (draft 2020-12) of a link's or provider's configuration
//! as a wasmCloud host is_transient it on, an object of texts.
//!
//! It agrees with the parser: names in any case, `NAME.anything`, and for each kind of value the
//! pattern that `value` has beside its reader. A name that kvredis does not know is ignored with a
//! warning; the schema refuses it, since it is a slip.

use serde_json::{Map, Value as Json, json};

use crate::settings::definition::Secrecy;
use crate::settings::render::{Row, rows};
use crate::settings::source::NAMES_OF_THE_SDK;
use crate::settings::value::any_case;

/// The schema.
pub(crate) fn schema() -> Json {
    let rows = rows();
    let properties: Map<String, Json> = rows
        .iter()
        .map(|row| (row.name.to_owned(), property(row)))
        .collect();
    let mut other_names: Map<String, Json> = rows
        .iter()
        .map(|row| {
            let reference = json!({ "$ref": format!("#/properties/{}", row.name) });
            (format!(r"^({})(\..*)?$", any_case(&[row.name])), reference)
        })
        .collect();
    for name in NAMES_OF_THE_SDK {
        let text = json!({ "type": "string", "description": "read by wasmCloud's provider SDK" });
        other_names.insert(format!("^({})", any_case(&[name])), text);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kvredis settings",
        "description": "Configuration and secrets of a link to kvredis, or of the provider itself, \
                        as texts. Names may be in any case, and NAME.anything reads as NAME.",
        "type": "object",
        "properties": properties,
        "patternProperties": other_names,
        "additionalProperties": false,
    })
}

fn property(row: &Row) -> Json {
    let mut property = json!({
        "type": "string",
        "description": row.meaning,
        "x-scope": row.scope.word(),
        "x-secret": match row.secrecy {
            Secrecy::Public => "never",
            Secrecy::MayHoldPassword => "with-password",
            Secrecy::Secret => "always",
        },
    });
    let mut add = |name: &str, value: Json| {
        property[name] = value;
    };
    if let Some(default) = row.default_value {
        add("default", json!(default));
    }
    if let Some(example) = row.any_example() {
        add("examples", json!([example]));
    }
    if row.secrecy == Secrecy::Secret {
        add("writeOnly", json!(true));
    }
    match &row.pattern {
        // The words for those who offer a choice, the pattern for what is accepted beside them.
        Some(pattern) if !row.words.is_empty() => {
            add(
                "anyOf",
                json!([{ "enum": row.words }, { "pattern": pattern }]),
            );
        }
        Some(pattern) => add("pattern", json!(pattern)),
        None => {}
    }
    property
}
