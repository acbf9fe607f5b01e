//! Which links this provider has ended for, so that each is worth one new start and no more.
//!
//! A host leaves out a link whose configuration or secrets it cannot fetch, at every start: who ended
//! for it each time would take the other links down every five seconds. A process knows nothing of
//! the one before, so the links are in a file, in the folder for temporary files. When that cannot be
//! written, no link is worth an end.

use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use wasmcloud_provider_sdk::HostData;

/// The links, each by component and name, that earlier processes have ended for.
#[derive(Debug)]
pub struct EndedFor {
    file: PathBuf,
}

impl EndedFor {
    /// Those of this provider on this host.
    pub fn new(folder: &Path, host_data: &HostData) -> Self {
        let mut hasher = DefaultHasher::new();
        let lattice = &host_data.lattice_rpc_prefix;
        (lattice, &host_data.host_id, &host_data.provider_key).hash(&mut hasher);
        let name = format!("kvredis-{:016x}.ended-for.json", hasher.finish());
        Self {
            file: folder.join(name),
        }
    }

    /// Notes a link; answers whether it is worth an end, because it was not noted before.
    pub fn note(&self, component: &str, name: &str) -> bool {
        let mut links = self.read();
        let link = (component.to_owned(), name.to_owned());
        if links.contains(&link) {
            return false;
        }
        links.push(link);
        self.write(&links).is_ok()
    }

    /// The next start is one that somebody wanted.
    pub fn forget(&self) {
        // It is only there if there was an end.
        let _ = fs::remove_file(&self.file);
    }

    fn read(&self) -> Vec<(String, String)> {
        // The folder is everybody's: what is there may be a pipe, too.
        let is_file = fs::symlink_metadata(&self.file).is_ok_and(|found| found.is_file());
        is_file
            .then(|| fs::read(&self.file).ok())
            .flatten()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default()
    }

    fn write(&self, links: &[(String, String)]) -> io::Result<()> {
        // Made anew, and so never written through a link that somebody else has put there.
        self.forget();
        let json = serde_json::to_vec(links)?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.file)?
            .write_all(&json)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn of(folder: &Path, provider: &str) -> EndedFor {
        let host_data = HostData {
            provider_key: provider.to_owned(),
            ..HostData::default()
        };
        EndedFor::new(folder, &host_data)
    }

    #[test]
    fn a_link_is_worth_one_end() {
        let folder = tempfile::tempdir().unwrap();
        assert!(of(folder.path(), "p").note("c", "default"));
        assert!(!of(folder.path(), "p").note("c", "default"));
        assert!(of(folder.path(), "p").note("c", "other"));
        assert!(!of(folder.path(), "p").note("c", "default"));
        assert!(of(folder.path(), "q").note("c", "default"), "another one's");
        of(folder.path(), "p").forget();
        assert!(of(folder.path(), "p").note("c", "default"));
    }

    #[test]
    fn without_a_file_nothing_is_worth_an_end() {
        let nowhere = Path::new("/nowhere");
        assert!(!of(nowhere, "p").note("c", "default"));
    }

    #[test]
    fn what_others_have_put_there_is_neither_followed_nor_believed() {
        let folder = tempfile::tempdir().unwrap();
        let ended_for = of(folder.path(), "p");
        let precious = folder.path().join("precious");
        fs::write(&precious, r#"[["c","default"]]"#).unwrap();
        symlink(&precious, &ended_for.file).unwrap();
        assert!(ended_for.note("c", "default"));
        assert!(!ended_for.note("c", "default"));
        assert_eq!(
            fs::read_to_string(precious).unwrap(),
            r#"[["c","default"]]"#
        );
        fs::write(&ended_for.file, "{").unwrap();
        assert!(ended_for.note("c", "default"));
    }
}
