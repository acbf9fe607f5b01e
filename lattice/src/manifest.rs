//! Loading wadm manifests with the addresses of this lattice, and deploying them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_yaml::Value;
use wadm_types::Manifest;
use wadm_types::api::{Status, StatusType};

use crate::progress::Progress;
use crate::wait;

/// Longer than other timeouts, because a debug build of the host compiles components slowly.
const DEPLOY_TIMEOUT: Duration = Duration::from_secs(180);

/// Reads a manifest as `wash app deploy` does: `file://./…` is relative to the manifest's folder.
/// Replaces the values in `replacements`, each of which must occur.
pub fn load(path: &Path, replacements: &[(&str, &str)]) -> Result<Manifest> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut value: Value = serde_yaml::from_str(&text)
        .with_context(|| format!("{} is not valid YAML", path.display()))?;
    let folder = path.canonicalize()?;
    let folder = folder
        .parent()
        .context("the manifest has no parent folder")?;
    let mut found = vec![false; replacements.len()];
    rewrite(&mut value, &mut |text| {
        if let Some(index) = replacements.iter().position(|(old, _)| old == text) {
            found[index] = true;
            *text = replacements[index].1.to_owned();
        }
        resolve_file(text, folder)
    })?;
    for ((old, _), found) in replacements.iter().zip(found) {
        ensure!(found, "{} has no value {old:?}", path.display());
    }
    serde_yaml::from_value(value).with_context(|| format!("{} is not a manifest", path.display()))
}

/// Deploys a manifest and waits until wadm reports that it is deployed, printing each status on the way.
pub async fn deploy(
    client: &wadm_client::Client,
    manifest: &Manifest,
    progress: &Progress,
) -> Result<()> {
    let (name, version) = client.put_and_deploy_manifest(manifest).await?;
    progress.print(format_args!("wadm is deploying {name} {version}"));
    let mut last_line = String::new();
    wait::until_true(
        &format!("{name} to be deployed"),
        DEPLOY_TIMEOUT,
        async || {
            let status = client.get_manifest_status(&name).await?;
            // wadm prefixes every name with that of the application.
            let line = describe(&status).replace(&format!("{}-", name.replace('-', "_")), "");
            if line != last_line {
                progress.print(format_args!("  {line}"));
                last_line = line;
            }
            match status.info.status_type {
                StatusType::Deployed => Ok(true),
                _ => bail!(last_line.clone()),
            }
        },
    )
    .await
}

/// Describes a status in one line, with the scalers that are not deployed yet.
fn describe(status: &Status) -> String {
    let pending: Vec<&str> = status
        .scalers
        .iter()
        .filter(|scaler| scaler.info.status_type != StatusType::Deployed)
        .map(|scaler| scaler.name.as_str())
        .collect();
    let ready = status.scalers.len() - pending.len();
    let mut line = format!(
        "{:?}: {ready} of {} scalers",
        status.info.status_type,
        status.scalers.len()
    );
    if !pending.is_empty() {
        line.push_str(", waiting for ");
        line.push_str(&pending.join("; "));
    }
    line
}

/// Calls `change` with every string in a YAML value.
fn rewrite(value: &mut Value, change: &mut impl FnMut(&mut String) -> Result<()>) -> Result<()> {
    match value {
        Value::String(text) => change(text),
        Value::Sequence(values) => values
            .iter_mut()
            .try_for_each(|value| rewrite(value, change)),
        Value::Mapping(values) => values
            .iter_mut()
            .try_for_each(|(_, value)| rewrite(value, change)),
        _ => Ok(()),
    }
}

fn resolve_file(text: &mut String, folder: &Path) -> Result<()> {
    let Some(relative) = text
        .strip_prefix("file://")
        .filter(|path| !path.starts_with('/'))
    else {
        return Ok(());
    };
    let path = folder.join(relative);
    let path = path
        .canonicalize()
        .with_context(|| format!("{} is missing: run `make build`", path.display()))?;
    *text = format!("file://{}", path.display());
    Ok(())
}
