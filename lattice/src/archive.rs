//! Provider archives (`.par.gz`): what a wasmCloud host starts a provider from. Inside: the program
//! for each architecture, the WIT that it serves, and claims, signed, with the hashes of both and the
//! JSON schema of its settings.
//!
//! The keys that sign an archive are kept as `wash build` keeps them, in `~/.wash/keys`: the
//! account (issuer) in `<user>_account.nk` and the provider's identity in `<binary>_service.nk`.
//! So an archive made here and one made by `wash build` are the same provider to a secrets
//! backend. Missing keys are made; `WASH_ISSUER_KEY` and `WASH_SUBJECT_KEY` (seeds) come first.

use std::convert::Infallible;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use nkeys::{KeyPair, KeyPairType};
use provider_archive::ProviderArchive;
use serde_json::Value;
use wit_parser::Resolve;

/// What to pack, and how to call it.
#[derive(Clone, Debug, clap::Args)]
pub struct Pack {
    /// The provider's program, for this machine or for the one named (`aarch64-linux=PATH`); give it
    /// once for each
    #[arg(long = "binary", value_name = "[ARCH-OS=]PATH", required = true)]
    pub binaries: Vec<Binary>,
    /// The archive to write
    #[arg(long)]
    pub out: PathBuf,
    /// The provider's name
    #[arg(long)]
    pub name: String,
    /// Who makes it
    #[arg(long)]
    pub vendor: String,
    /// Its revision, a number that grows
    #[arg(long, default_value_t = 0)]
    pub revision: i32,
    /// Its version
    #[arg(long)]
    pub version: Option<String>,
    /// A JSON schema of its configuration
    #[arg(long)]
    pub schema: Option<PathBuf>,
    /// The folder with the WIT that it serves
    #[arg(long)]
    pub wit: Option<PathBuf>,
    /// The folder with the keys [default: ~/.wash/keys]
    #[arg(long)]
    pub keys: Option<PathBuf>,
}

/// A program, and the machines that it is for.
#[derive(Clone, Debug)]
pub struct Binary {
    /// As archives name machines: `x86_64-linux`.
    pub machine: String,
    /// The program's file.
    pub path: PathBuf,
}

impl FromStr for Binary {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (machine, path) = match text.split_once('=') {
            Some((machine, path)) => (machine.to_owned(), path),
            None => (this_machine(), text),
        };
        Ok(Self {
            machine,
            path: path.into(),
        })
    }
}

/// Writes the archive and returns the provider's public key, by which secrets are granted to it.
pub async fn pack(pack: &Pack) -> Result<String> {
    let keys = pack.keys.clone().map_or_else(default_keys, Ok)?;
    let first = pack.binaries.first().context("nothing to pack")?;
    let stem = first
        .path
        .file_stem()
        .context("--binary names no file")?
        .to_string_lossy();
    let user = env::var("USER").unwrap_or_else(|_| "user".to_owned());
    let issuer = key(
        "WASH_ISSUER_KEY",
        &keys.join(format!("{user}_account.nk")),
        KeyPairType::Account,
    )?;
    let subject = key(
        "WASH_SUBJECT_KEY",
        &keys.join(format!("{stem}_service.nk")),
        KeyPairType::Service,
    )?;

    let mut archive = ProviderArchive::new(
        &pack.name,
        &pack.vendor,
        Some(pack.revision),
        pack.version.clone(),
    );
    for binary in &pack.binaries {
        ensure!(
            !archive.targets().contains(&binary.machine),
            "two programs for {}",
            binary.machine
        );
        archive
            .add_library(&binary.machine, &read(&binary.path)?)
            .map_err(|error| anyhow!(error))?;
    }
    if let Some(wit) = &pack.wit {
        archive
            .add_wit_world(&encode_wit(wit)?)
            .map_err(|error| anyhow!(error))?;
    }
    if let Some(schema) = &pack.schema {
        archive
            .set_schema(read_schema(schema)?)
            .map_err(|error| anyhow!(error))?;
    }
    if let Some(folder) = pack.out.parent() {
        fs::create_dir_all(folder)?;
    }
    archive
        .write(&pack.out, &issuer, &subject, true)
        .await
        .map_err(|error| anyhow!(error))
        .with_context(|| format!("cannot write {}", pack.out.display()))?;
    Ok(subject.public_key())
}

/// The public key of the provider in an archive.
pub async fn public_key(archive: &Path) -> Result<String> {
    let archive = ProviderArchive::try_load_file(archive)
        .await
        .map_err(|error| anyhow!(error))
        .with_context(|| format!("cannot read {}", archive.display()))?;
    let claims = archive.claims().context("the archive is not signed")?;
    Ok(claims.subject)
}

/// This machine, as archives name it: `x86_64-linux`.
fn this_machine() -> String {
    format!("{}-{}", env::consts::ARCH, env::consts::OS)
}

fn default_keys() -> Result<PathBuf> {
    let home = env::home_dir().context("no home folder; use --keys")?;
    Ok(home.join(".wash/keys"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn read_schema(path: &Path) -> Result<Value> {
    let schema: Value = serde_json::from_slice(&read(path)?)
        .with_context(|| format!("{} is no JSON", path.display()))?;
    ensure!(schema.is_object(), "{} is no schema", path.display());
    Ok(schema)
}

/// The WIT package in a folder, in the binary form that archives hold.
fn encode_wit(folder: &Path) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(folder)
        .with_context(|| format!("no WIT in {}", folder.display()))?;
    wit_component::encode(&resolve, package)
        .with_context(|| format!("cannot encode the WIT in {}", folder.display()))
}

/// The key in the environment, else in `path`, else a new one that is stored there.
fn key(variable: &str, path: &Path, kind: KeyPairType) -> Result<KeyPair> {
    if let Ok(seed) = env::var(variable) {
        return KeyPair::from_seed(seed.trim())
            .map_err(|_| anyhow!("{variable} is no seed of a key"));
    }
    if path.exists() {
        let seed =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        return KeyPair::from_seed(seed.trim())
            .map_err(|_| anyhow!("{} is no seed of a key", path.display()));
    }
    let key = KeyPair::new(kind);
    let seed = key.seed().map_err(|error| anyhow!(error))?;
    write_key(path, &seed).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key)
}

fn write_key(path: &Path, seed: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?
        .write_all(seed.as_bytes())?;
    Ok(())
}
