//! Provider archives (`.par.gz`), from which a wasmCloud host starts a provider. An archive contains
//! the executable for each target, the WIT world, and signed claims with the hashes of both and the
//! JSON schema of the settings.
//!
//! The signing keys are stored in `~/.wash/keys`, where `wash build` stores them: the account
//! (issuer) in `<user>_account.nk` and the provider's identity in `<binary>_service.nk`. To a secrets
//! backend, archives made here and by `wash build` are therefore the same provider. Missing keys are
//! generated; the seeds in `WASH_ISSUER_KEY` and `WASH_SUBJECT_KEY` take precedence.

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

/// The arguments of `lattice pack`.
#[derive(Clone, Debug, clap::Args)]
pub struct PackArgs {
    /// The provider's executable, for this machine or for a target (`aarch64-linux=PATH`); repeat the
    /// option for further targets
    #[arg(long = "binary", value_name = "[ARCH-OS=]PATH", required = true)]
    pub binaries: Vec<Binary>,
    /// The archive to write
    #[arg(long)]
    pub out: PathBuf,
    /// The provider's name
    #[arg(long)]
    pub name: String,
    /// The provider's vendor
    #[arg(long)]
    pub vendor: String,
    /// The revision, a number that increases with each release
    #[arg(long, default_value_t = 0)]
    pub revision: i32,
    /// The version
    #[arg(long)]
    pub version: Option<String>,
    /// The JSON schema of the configuration
    #[arg(long)]
    pub schema: Option<PathBuf>,
    /// The folder with the WIT world
    #[arg(long)]
    pub wit: Option<PathBuf>,
    /// The folder with the signing keys [default: ~/.wash/keys]
    #[arg(long)]
    pub keys: Option<PathBuf>,
}

/// An executable and its target.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The target in the notation of archives, such as `x86_64-linux`.
    pub target: String,
    pub path: PathBuf,
}

impl FromStr for Binary {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (target, path) = match text.split_once('=') {
            Some((target, path)) => (target.to_owned(), path),
            None => (host_target(), text),
        };
        Ok(Self {
            target,
            path: path.into(),
        })
    }
}

/// Writes the archive and returns the provider's public key, to which a secrets backend grants secrets.
pub async fn pack(args: &PackArgs) -> Result<String> {
    let keys = args.keys.clone().map_or_else(default_keys, Ok)?;
    let first = args.binaries.first().context("no --binary")?;
    let stem = first
        .path
        .file_stem()
        .context("--binary is not the path of a file")?
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
        &args.name,
        &args.vendor,
        Some(args.revision),
        args.version.clone(),
    );
    for binary in &args.binaries {
        ensure!(
            !archive.targets().contains(&binary.target),
            "duplicate --binary for {}",
            binary.target
        );
        archive
            .add_library(&binary.target, &read(&binary.path)?)
            .map_err(|error| anyhow!(error))?;
    }
    if let Some(wit) = &args.wit {
        archive
            .add_wit_world(&encode_wit(wit)?)
            .map_err(|error| anyhow!(error))?;
    }
    if let Some(schema) = &args.schema {
        archive
            .set_schema(read_schema(schema)?)
            .map_err(|error| anyhow!(error))?;
    }
    if let Some(folder) = args.out.parent() {
        fs::create_dir_all(folder)?;
    }
    archive
        .write(&args.out, &issuer, &subject, true)
        .await
        .map_err(|error| anyhow!(error))
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    Ok(subject.public_key())
}

/// Returns the public key of the provider in an archive.
pub async fn public_key(archive: &Path) -> Result<String> {
    let archive = ProviderArchive::try_load_file(archive)
        .await
        .map_err(|error| anyhow!(error))
        .with_context(|| format!("cannot read {}", archive.display()))?;
    let claims = archive.claims().context("the archive is not signed")?;
    Ok(claims.subject)
}

/// The target of this machine.
fn host_target() -> String {
    format!("{}-{}", env::consts::ARCH, env::consts::OS)
}

fn default_keys() -> Result<PathBuf> {
    let home = env::home_dir().context("no home folder: use --keys")?;
    Ok(home.join(".wash/keys"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn read_schema(path: &Path) -> Result<Value> {
    let schema: Value = serde_json::from_slice(&read(path)?)
        .with_context(|| format!("{} is not valid JSON", path.display()))?;
    ensure!(
        schema.is_object(),
        "{} is not a JSON schema",
        path.display()
    );
    Ok(schema)
}

/// Encodes the WIT package in a folder in the binary form of archives.
fn encode_wit(folder: &Path) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(folder)
        .with_context(|| format!("no valid WIT package in {}", folder.display()))?;
    wit_component::encode(&resolve, package)
        .with_context(|| format!("cannot encode the WIT in {}", folder.display()))
}

/// Returns the key in the environment variable, or the one in `path`, which is generated if missing.
fn key(variable: &str, path: &Path, kind: KeyPairType) -> Result<KeyPair> {
    if let Ok(seed) = env::var(variable) {
        return KeyPair::from_seed(seed.trim())
            .map_err(|_| anyhow!("{variable} is not the seed of a key"));
    }
    if path.exists() {
        let seed =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        return KeyPair::from_seed(seed.trim())
            .map_err(|_| anyhow!("{} does not contain the seed of a key", path.display()));
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
