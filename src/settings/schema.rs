//! The settings as a JSON schema (draft 2020-12) of a link's or the provider's configuration, which a
//! wasmCloud host sends as an object of texts.
//!
//! It agrees with the parser: names in any case, `NAME.anything`, and for each value the pattern of
//! its parser. The parser ignores unknown names with a warning; the schema rejects them, because such
//! a name is a mistake.

use serde_json::{Map, Value as Json, json};

use crate::settings::catalog::{self, SettingInfo};
use crate::settings::definition::Secrecy;
use crate::settings::parse::SDK_NAMES;
use crate::settings::patterns::any_case;

pub(crate) fn schema() -> Json {
    let settings = catalog::all();
    let properties: Map<String, Json> = settings
        .iter()
        .map(|setting| (setting.name.to_owned(), property(setting)))
        .collect();
    let mut other_names: Map<String, Json> = settings
        .iter()
        .map(|setting| {
            let reference = json!({ "$ref": format!("#/properties/{}", setting.name) });
            (
                format!(r"^({})(\..*)?$", any_case(&[setting.name])),
                reference,
            )
        })
        .collect();
    for name in SDK_NAMES {
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

fn property(setting: &SettingInfo) -> Json {
    let mut property = json!({
        "type": "string",
        "description": setting.meaning,
        "x-scope": setting.scope.as_str(),
        "x-secret": match setting.secrecy {
            Secrecy::Public => "never",
            Secrecy::MayContainPassword => "with-password",
            Secrecy::Secret => "always",
        },
    });
    let mut add = |name: &str, value: Json| {
        property[name] = value;
    };
    if let Some(default) = setting.default_value {
        add("default", json!(default));
    }
    if let Some(example) = setting.any_example() {
        add("examples", json!([example]));
    }
    if setting.secrecy == Secrecy::Secret {
        add("writeOnly", json!(true));
    }
    match &setting.pattern {
        // The words for tools that offer a choice, the pattern for the other accepted spellings.
        Some(pattern) if !setting.words.is_empty() => {
            add(
                "anyOf",
                json!([{ "enum": setting.words }, { "pattern": pattern }]),
            );
        }
        Some(pattern) => add("pattern", json!(pattern)),
        None => {}
    }
    property
}
