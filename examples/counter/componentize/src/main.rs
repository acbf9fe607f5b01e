//! `componentize MODULE COMPONENT WIT`: converts a core wasm module to a component.
//!
//! Replaces `wasm-tools component new` and `component targets` where they are not installed. wit-bindgen embeds
//! the description of the world in a custom section of the module; the component must match the world of the
//! WIT folder.

use std::error::Error;
use std::{env, fs};

use wit_component::ComponentEncoder;
use wit_parser::Resolve;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [module, component, wit] = arguments.as_slice() else {
        return Err("usage: componentize MODULE COMPONENT WIT".into());
    };
    let bytes = ComponentEncoder::default()
        .module(&fs::read(module)?)?
        .validate(true)
        .encode()?;

    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit)?;
    let world = resolve.select_world(&[package], None)?;
    wit_component::targets(&resolve, world, &bytes, false)?;

    fs::write(component, bytes)?;
    Ok(())
}
