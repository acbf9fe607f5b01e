//! The manifests in the repository, and the loading of manifests.

// Guarantees: G58

use std::fs;

use anyhow::{Context, Result, ensure};
use lattice::manifest;

use crate::setup::root;

#[test]
fn manifests_differ_only_in_images_and_addresses() -> Result<()> {
    let lines = |name: &str| -> Result<Vec<String>> {
        Ok(fs::read_to_string(root().join(name))?
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("image: "))
            .map(str::to_owned)
            .collect())
    };
    let local = lines("local.wadm.yaml")?;
    assert_eq!(lines("wadm.yaml")?, local);
    // Containers reach servers by name, and servers listen on all interfaces.
    let for_containers = |line: &String| {
        line.replace("redis://127.0.0.1:6379", "redis://redis:6379")
            .replace("address: 127.0.0.1:8000", "address: 0.0.0.0:8000")
    };
    let expected: Vec<String> = local.iter().map(for_containers).collect();
    assert_eq!(lines("deploy/compose.wadm.yaml")?, expected);
    Ok(())
}

// Guarantees: G27
#[tokio::test]
async fn example_manifests_are_valid_for_every_redis_topology() -> Result<()> {
    let mut names = Vec::new();
    let mut config_names = Vec::new();
    for file in fs::read_dir(root().join("examples/wadm"))? {
        let path = file?.path();
        let manifest = manifest::load(&path, &[])
            .with_context(|| format!("{} is not a valid manifest", path.display()))?;
        let errors = wadm_types::validation::validate_manifest(&manifest).await?;
        ensure!(errors.is_empty(), "{}: {errors:?}", path.display());
        let json = serde_json::to_value(&manifest)?;
        collect_config_names(&json, &mut config_names);
        names.push(manifest.metadata.name);
    }
    names.sort();
    let expected = ["cluster", "rotating", "sentinel", "single", "tls", "unix"];
    assert_eq!(names, expected.map(|kind| format!("orders-{kind}")));
    // Names identify configurations in a lattice: equal names would be the same configuration.
    let count = config_names.len();
    config_names.sort();
    config_names.dedup();
    assert_eq!(config_names.len(), count);
    Ok(())
}

fn collect_config_names(value: &serde_json::Value, names: &mut Vec<String>) {
    if let Some(configs) = value.get("config").and_then(|config| config.as_array()) {
        let name_of = |config: &serde_json::Value| Some(config.get("name")?.as_str()?.to_owned());
        names.extend(configs.iter().filter_map(name_of));
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
fn relative_file_urls_are_resolved_next_to_the_manifest() -> Result<()> {
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
fn missing_files_and_missing_values_are_errors() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("m.yaml");
    fs::write(&path, MANIFEST)?;
    let error = manifest::load(&path, &[])
        .err()
        .context("a missing file is accepted")?;
    ensure!(
        format!("{error:#}").contains("a.wasm is missing"),
        "{error:#}"
    );

    fs::write(folder.path().join("a.wasm"), "")?;
    let error = manifest::load(&path, &[("absent", "x")]).err();
    let error = error.context("a missing value is accepted")?;
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
