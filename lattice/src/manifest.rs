//! wadm manifests: read, given the addresses of this lattice, deployed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_yaml::Value;
use wadm_types::Manifest;
use wadm_types::api::{Status, StatusType};

use crate::progress::Progress;
use crate::wait;

/// A debug build of the host takes a while to compile a component.
const DEPLOY: Duration = Duration::from_secs(180);

/// Reads a manifest as `wash app deploy` does: `file://./…` is relative to the manifest's folder.
/// Then replaces each value that is one of `replacements`; all of them must be there.
pub fn load(path: &Path, replacements: &[(&str, &str)]) -> Result<Manifest> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut value: Value =
        serde_yaml::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))?;
    let folder = path.canonicalize()?;
    let folder = folder.parent().context("the manifest is in no folder")?;
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
    serde_yaml::from_value(value).with_context(|| format!("{} is no manifest", path.display()))
}

/// Deploys a manifest and waits until wadm says that all of it is deployed, telling the way there.
pub async fn deploy(
    client: &wadm_client::Client,
    manifest: &Manifest,
    progress: &Progress,
) -> Result<()> {
    let (name, version) = client.put_and_deploy_manifest(manifest).await?;
    progress.say(format_args!("wadm deploys {name} {version}"));
    let mut told = String::new();
    wait::until_true(&format!("{name} to be deployed"), DEPLOY, async || {
        let status = client.get_manifest_status(&name).await?;
        // wadm puts the application before every name.
        let line = describe(&status).replace(&format!("{}-", name.replace('-', "_")), "");
        if line != told {
            progress.say(format_args!("  {line}"));
            told = line;
        }
        match status.info.status_type {
            StatusType::Deployed => Ok(true),
            _ => bail!(told.clone()),
        }
    })
    .await
}

/// One line: the status, how many parts are there, and what is still awaited.
fn describe(status: &Status) -> String {
    let pending: Vec<&str> = status
        .scalers
        .iter()
        .filter(|scaler| scaler.info.status_type != StatusType::Deployed)
        .map(|scaler| scaler.name.as_str())
        .collect();
    let ready = status.scalers.len() - pending.len();
    let mut line = format!(
        "{:?}: {ready} of {} parts",
        status.info.status_type,
        status.scalers.len()
    );
    if !pending.is_empty() {
        line.push_str(", waiting for ");
        line.push_str(&pending.join("; "));
    }
    line
}

/// Calls `change` with every text of a YAML value.
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
        .with_context(|| format!("{} is missing: `make demo` builds it", path.display()))?;
    *text = format!("file://{}", path.display());
    Ok(())
}
