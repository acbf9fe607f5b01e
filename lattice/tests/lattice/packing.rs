//! The contents of provider archives: of the archive under test, and of those that `lattice pack` creates.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, ensure};
use lattice::archive::public_key;
use provider_archive::ProviderArchive;
use serde_json::json;
use wit_component::DecodedWasm;

use crate::setup::{archive, root};

// Guarantees: G23
#[tokio::test]
async fn archive_contains_the_wit_world_and_the_settings_schema() -> Result<()> {
    let archive = load(&archive()).await?;
    let world = world(&archive)?;
    for interface in ["store", "atomics", "batch"] {
        let export = format!("export wrpc:keyvalue/{interface}@0.2.0-draft");
        ensure!(world.contains(&export), "no {export} in {world}");
    }
    let import = "import wrpc:keyvalue/watcher@0.2.0-draft";
    ensure!(world.contains(import), "no {import} in {world}");

    let schema = archive.schema().context("no settings schema")?;
    ensure!(schema["type"] == "object", "{schema}");
    for setting in ["URL", "PREFIX", "BUCKET_LAYOUT"] {
        ensure!(
            schema["properties"][setting].is_object(),
            "no {setting} in {schema}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn archive_contains_the_executables_of_several_targets() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let schema = json!({"type": "object", "properties": {"URL": {"type": "string"}}});
    fs::write(folder.join("provider"), "an executable for this machine")?;
    fs::write(folder.join("other"), "an executable for another machine")?;
    fs::write(folder.join("schema.json"), schema.to_string())?;

    let output = pack(
        folder,
        &[
            "--binary=provider",
            "--binary=riscv64-linux=other",
            "--schema=schema.json",
        ],
    )?;
    ensure!(output.status.success(), "{output:?}");
    let first = load(&folder.join("provider.par.gz")).await?;
    let host_target = format!("{}-linux", std::env::consts::ARCH);
    for (target, executable) in [
        (host_target.as_str(), "an executable for this machine"),
        ("riscv64-linux", "an executable for another machine"),
    ] {
        let packed = first.target_bytes(target).context("no such target")?;
        ensure!(packed == executable.as_bytes(), "{target}: {packed:?}");
    }
    ensure!(first.targets().len() == 2, "{:?}", first.targets());
    ensure!(first.schema() == Some(schema), "{:?}", first.schema());
    ensure!(world(&first)?.contains("world provider"));

    // Secrets are granted to the public key, so it must not change between releases.
    let key = public_key(&folder.join("provider.par.gz")).await?;
    let output = pack(folder, &["--binary=provider"])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(public_key(&folder.join("provider.par.gz")).await? == key);
    Ok(())
}

#[test]
fn invalid_pack_arguments_are_reported() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    fs::write(folder.join("provider"), "an executable")?;
    fs::write(folder.join("text"), "not JSON")?;
    fs::write(folder.join("list"), "[]")?;
    for (arguments, expected) in [
        (&["--binary=none"][..], "cannot read none"),
        (
            &[
                "--binary=riscv64-linux=provider",
                "--binary=riscv64-linux=text",
            ],
            "duplicate --binary for riscv64-linux",
        ),
        (
            &["--binary=provider", "--schema=text"],
            "text is not valid JSON",
        ),
        (
            &["--binary=provider", "--schema=list"],
            "list is not a JSON schema",
        ),
        (
            &["--binary=provider", "--wit=none"],
            "no valid WIT package in none",
        ),
    ] {
        let output = pack(folder, arguments)?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{arguments:?} was packed");
        ensure!(error.contains(expected), "{arguments:?}: {error}");
        ensure!(!folder.join("provider.par.gz").exists(), "{arguments:?}");
    }
    Ok(())
}

/// Runs `lattice pack` in a folder with its own keys, and with kvredis's WIT unless the arguments name
/// another.
fn pack(folder: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lattice"));
    command
        .current_dir(folder)
        .env_remove("WASH_ISSUER_KEY")
        .env_remove("WASH_SUBJECT_KEY")
        .args(["pack", "--name=provider", "--vendor=tests", "--keys=keys"])
        .arg("--out=provider.par.gz")
        .args(arguments);
    if !arguments
        .iter()
        .any(|argument| argument.starts_with("--wit"))
    {
        command.arg("--wit").arg(root().join("wit"));
    }
    Ok(command.output()?)
}

/// Loads an archive and verifies its signature and hashes.
async fn load(path: &Path) -> Result<ProviderArchive> {
    ProviderArchive::try_load_file(path)
        .await
        .map_err(|error| anyhow!(error))
        .with_context(|| path.display().to_string())
}

/// Returns the WIT world in an archive as text.
fn world(archive: &ProviderArchive) -> Result<String> {
    let encoded = archive.wit_world().context("no WIT")?;
    let DecodedWasm::WitPackage(resolve, package) = wit_component::decode(encoded)? else {
        return Err(anyhow!("the WIT world is a component"));
    };
    let mut printer = wit_component::WitPrinter::default();
    printer.print(&resolve, package, &[])?;
    Ok(printer.output.to_string())
}
