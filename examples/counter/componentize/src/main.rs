//! `componentize MODULE COMPONENT WIT`: makes a component of a core wasm module.
//!
//! What `wasm-tools component new` and `component targets` do, for machines without them. The module brings
//! the description of its world in a section of its own, put there by wit-bindgen; the component must fit the
//! world of the WIT folder.

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
