//! What is in a provider archive: the one that is tested, and one that `lattice pack` makes here.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, ensure};
use lattice::archive::public_key;
use provider_archive::ProviderArchive;
use serde_json::json;
use wit_component::DecodedWasm;

use crate::setup::{archive, root};

#[tokio::test]
async fn the_archive_tells_what_kvredis_serves_and_reads() -> Result<()> {
    let archive = load(&archive()).await?;
    let world = world(&archive)?;
    for interface in ["store", "atomics", "batch"] {
        let export = format!("export wrpc:keyvalue/{interface}@0.2.0-draft");
        ensure!(world.contains(&export), "no {export} in {world}");
    }
    let import = "import wrpc:keyvalue/watcher@0.2.0-draft";
    ensure!(world.contains(import), "no {import} in {world}");

    let schema = archive.schema().context("no schema of the settings")?;
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
async fn an_archive_holds_the_programs_of_several_machines() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    let schema = json!({"type": "object", "properties": {"URL": {"type": "string"}}});
    fs::write(here.join("provider"), "a program for this machine")?;
    fs::write(here.join("other"), "a program for another machine")?;
    fs::write(here.join("schema.json"), schema.to_string())?;

    let made = pack(
        here,
        &[
            "--binary=provider",
            "--binary=riscv64-linux=other",
            "--schema=schema.json",
        ],
    )?;
    ensure!(made.status.success(), "{made:?}");
    let first = load(&here.join("made.par.gz")).await?;
    let this_machine = format!("{}-linux", std::env::consts::ARCH);
    for (machine, program) in [
        (this_machine.as_str(), "a program for this machine"),
        ("riscv64-linux", "a program for another machine"),
    ] {
        let packed = first.target_bytes(machine).context("no such machine")?;
        ensure!(packed == program.as_bytes(), "{machine}: {packed:?}");
    }
    ensure!(first.targets().len() == 2, "{:?}", first.targets());
    ensure!(first.schema() == Some(schema), "{:?}", first.schema());
    ensure!(world(&first)?.contains("world provider"));

    // Secrets are granted to a provider by its key: a new release is the same provider.
    let key = public_key(&here.join("made.par.gz")).await?;
    let made = pack(here, &["--binary=provider"])?;
    ensure!(made.status.success(), "{made:?}");
    ensure!(public_key(&here.join("made.par.gz")).await? == key);
    Ok(())
}

#[test]
fn what_cannot_be_packed_is_said() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    fs::write(here.join("provider"), "a program")?;
    fs::write(here.join("text"), "no JSON")?;
    fs::write(here.join("list"), "[]")?;
    for (arguments, expected) in [
        (&["--binary=none"][..], "cannot read none"),
        (
            &[
                "--binary=riscv64-linux=provider",
                "--binary=riscv64-linux=text",
            ],
            "two programs for riscv64-linux",
        ),
        (&["--binary=provider", "--schema=text"], "text is no JSON"),
        (&["--binary=provider", "--schema=list"], "list is no schema"),
        (&["--binary=provider", "--wit=none"], "no WIT in none"),
    ] {
        let made = pack(here, arguments)?;
        let error = String::from_utf8_lossy(&made.stderr);
        ensure!(!made.status.success(), "{arguments:?} was packed");
        ensure!(error.contains(expected), "{arguments:?}: {error}");
        ensure!(!here.join("made.par.gz").exists(), "{arguments:?}");
    }
    Ok(())
}

/// Runs `lattice pack` in a folder, with keys of its own, and with kvredis's WIT unless the arguments
/// name another.
fn pack(folder: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lattice"));
    command
        .current_dir(folder)
        .env_remove("WASH_ISSUER_KEY")
        .env_remove("WASH_SUBJECT_KEY")
        .args(["pack", "--name=provider", "--vendor=tests", "--keys=keys"])
        .arg("--out=made.par.gz")
        .args(arguments);
    if !arguments
        .iter()
        .any(|argument| argument.starts_with("--wit"))
    {
        command.arg("--wit").arg(root().join("wit"));
    }
    Ok(command.output()?)
}

/// An archive, whose signature and hashes have been checked.
async fn load(path: &Path) -> Result<ProviderArchive> {
    ProviderArchive::try_load_file(path)
        .await
        .map_err(|error| anyhow!(error))
        .with_context(|| path.display().to_string())
}

/// The world in an archive, as text.
fn world(archive: &ProviderArchive) -> Result<String> {
    let encoded = archive.wit_world().context("no WIT")?;
    let DecodedWasm::WitPackage(resolve, package) = wit_component::decode(encoded)? else {
        return Err(anyhow!("the WIT is a component"));
    };
    let mut printer = wit_component::WitPrinter::default();
    printer.print(&resolve, package, &[])?;
    Ok(printer.output.to_string())
}
