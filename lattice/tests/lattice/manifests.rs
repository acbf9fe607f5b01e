//! The two manifests in the repository, and how they are read.

use std::fs;

use anyhow::{Context, Result, ensure};
use lattice::manifest;

use crate::setup::root;

#[test]
fn both_manifests_are_the_same_but_for_the_images() -> Result<()> {
    let lines = |name: &str| -> Result<Vec<String>> {
        Ok(fs::read_to_string(root().join(name))?
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("image: "))
            .map(str::to_owned)
            .collect())
    };
    assert_eq!(lines("wadm.yaml")?, lines("local.wadm.yaml")?);
    Ok(())
}

#[test]
fn a_relative_file_is_found_next_to_the_manifest() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("a.wasm"), "")?;
    let path = folder.path().join("m.yaml");
    fs::write(&path, MANIFEST)?;

    let manifest = manifest::load(&path, &[("old", "new")])?;
    let text = serde_json::to_string(&manifest)?;
    let file = folder.path().canonicalize()?.join("a.wasm");
    assert!(
        text.contains(&format!("file://{}", file.display())),
        "{text}"
    );
    assert!(text.contains(r#""URL":"new""#), "{text}");
    Ok(())
}

#[test]
fn a_missing_file_and_a_missing_value_are_errors() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("m.yaml");
    fs::write(&path, MANIFEST)?;
    let error = manifest::load(&path, &[]).err().context("no file")?;
    ensure!(
        format!("{error:#}").contains("a.wasm is missing"),
        "{error:#}"
    );

    fs::write(folder.path().join("a.wasm"), "")?;
    let error = manifest::load(&path, &[("absent", "x")]).err();
    let error = error.context("no such value")?;
    ensure!(
        format!("{error:#}").contains(r#"no value "absent""#),
        "{error:#}"
    );
    Ok(())
}

const MANIFEST: &str = "
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {name: m, annotations: {version: v1}}
spec:
  components:
    - name: a
      type: component
      properties:
        image: file://./a.wasm
        config: [{name: c, properties: {URL: old}}]
";
