//! The manifests in the repository, and how they are read.

use std::fs;

use anyhow::{Context, Result, ensure};
use lattice::manifest;

use crate::setup::root;

#[test]
fn the_manifests_are_the_same_but_for_images_and_addresses() -> Result<()> {
    let lines = |name: &str| -> Result<Vec<String>> {
        Ok(fs::read_to_string(root().join(name))?
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("image: "))
            .map(str::to_owned)
            .collect())
    };
    let local = lines("local.wadm.yaml")?;
    assert_eq!(lines("wadm.yaml")?, local);
    // In containers, servers have names and listen for other machines.
    let for_containers = |line: &String| {
        line.replace("redis://127.0.0.1:6379", "redis://redis:6379")
            .replace("address: 127.0.0.1:8000", "address: 0.0.0.0:8000")
    };
    let expected: Vec<String> = local.iter().map(for_containers).collect();
    assert_eq!(lines("deploy/compose.wadm.yaml")?, expected);
    Ok(())
}

#[tokio::test]
async fn there_is_a_manifest_for_each_kind_of_redis() -> Result<()> {
    let mut names = Vec::new();
    let mut config_names = Vec::new();
    for file in fs::read_dir(root().join("examples/wadm"))? {
        let path = file?.path();
        let manifest = manifest::load(&path, &[])
            .with_context(|| format!("{} is not what wadm takes", path.display()))?;
        let errors = wadm_types::validation::validate_manifest(&manifest).await?;
        ensure!(errors.is_empty(), "{}: {errors:?}", path.display());
        let json = serde_json::to_value(&manifest)?;
        collect_config_names(&json, &mut config_names);
        names.push(manifest.metadata.name);
    }
    names.sort();
    let expected = ["cluster", "rotating", "sentinel", "single", "tls", "unix"];
    assert_eq!(names, expected.map(|kind| format!("orders-{kind}")));
    // Configurations are known by name in a lattice: two of one name would be one.
    let count = config_names.len();
    config_names.sort();
    config_names.dedup();
    assert_eq!(config_names.len(), count);
    Ok(())
}

fn collect_config_names(value: &serde_json::Value, names: &mut Vec<String>) {
    if let Some(configs) = value.get("config").and_then(|config| config.as_array()) {
        let of = |config: &serde_json::Value| Some(config.get("name")?.as_str()?.to_owned());
        names.extend(configs.iter().filter_map(of));
    }
    let inner: Vec<&serde_json::Value> = match value {
        serde_json::Value::Object(fields) => fields.values().collect(),
        serde_json::Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    for value in inner {
        collect_config_names(value, names);
    }
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
