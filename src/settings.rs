//! The settings of a link and of the provider: from the names and texts that a host sends to typed
//! values, with an error or a warning for each invalid or questionable text.
//!
//! `link_settings` and `provider_settings` are the typed values, with their defaults. `definitions`
//! has one entry for each setting: its name, meaning and parser (`value_parser`, `url`, `watch`).
//! `parse` applies the entries to the values of a `source`; `redaction` decides what an error shows of one. `catalog` lists the entries for `render`
//! (the table that people read) and `schema` (JSON). Nothing here does I/O or logs.

pub(crate) mod address;
pub(crate) mod catalog;
mod definition;
mod definitions;
pub(crate) mod error;
mod foreign_form;
pub(crate) mod link_settings;
pub(crate) mod origin;
mod parse;
mod patterns;
pub(crate) mod provider_settings;
mod redaction;
pub(crate) mod render;
pub(crate) mod schema;
pub(crate) mod secret;
pub(crate) mod source;
pub(crate) mod tls;
mod url;
mod value_parser;
pub(crate) mod watch;

#[cfg(test)]
mod tests;
