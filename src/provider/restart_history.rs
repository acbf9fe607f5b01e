//! Which links this provider has ended for, so that each is worth a few new starts and no more.
//!
//! A host leaves out a link whose configuration or secrets it cannot fetch, at every start: who ended
//! for it each time would take the other links down every five seconds. But what cannot be fetched
//! now may be there later, and no host tells. A process knows nothing of the one before, so the
//! links are in a file, in the folder for temporary files. When that cannot be written, no link is
//! worth an end.

use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use wasmcloud_provider_sdk::HostData;

use crate::link::registry::LinkDirection;

/// A link by its way, its component and its name.
pub(crate) type LinkId<'a> = (LinkDirection, &'a str, &'a str);

/// How long a link must have been missed after the first end for it, the second, and so on.
const GAPS: [Duration; 4] = [
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(60 * 60),
];

/// The links that earlier processes have ended for.
#[derive(Debug)]
pub(crate) struct RestartHistory {
    file: PathBuf,
}

#[derive(Debug, Deserialize, Serialize)]
struct RestartCounts {
    way: LinkDirection,
    component: String,
    name: String,
    times: usize,
    latest: SystemTime,
}

impl RestartHistory {
    /// Those of this provider on this host.
    pub(crate) fn new(folder: &Path, host_data: &HostData) -> Self {
        let mut hasher = DefaultHasher::new();
        let lattice = &host_data.lattice_rpc_prefix;
        (lattice, &host_data.host_id, &host_data.provider_key).hash(&mut hasher);
        let name = format!("kvredis-{:016x}.ended-for.json", hasher.finish());
        Self {
            file: folder.join(name),
        }
    }

    /// Whether a link that is missed is worth an end.
    pub(crate) fn may_restart(&self, (way, component, name): LinkId<'_>) -> bool {
        let links = self.read();
        links
            .iter()
            .find(|l| l.is((way, component, name)))
            .is_none_or(RestartCounts::is_worth_another)
    }

    /// Notes the end for a link; answers whether that is possible.
    pub(crate) fn note(&self, (way, component, name): LinkId<'_>) -> bool {
        let mut links = self.read();
        let times = links
            .iter()
            .find(|l| l.is((way, component, name)))
            .map_or(0, |l| l.times);
        links.retain(|link| !link.is((way, component, name)));
        links.push(RestartCounts {
            way,
            component: component.to_owned(),
            name: name.to_owned(),
            times: times + 1,
            latest: SystemTime::now(),
        });
        self.write(&links).is_ok()
    }

    /// A link is there that may have been missed.
    pub(crate) fn arrived(&self, (way, component, name): LinkId<'_>) {
        let mut links = self.read();
        let before = links.len();
        links.retain(|link| !link.is((way, component, name)));
        if links.is_empty() {
            self.forget();
        } else if links.len() < before {
            // Else it is worth less the next time.
            let _ = self.write(&links);
        }
    }

    /// The next start is one that somebody wanted.
    pub(crate) fn forget(&self) {
        // It is only there if there was an end.
        let _ = fs::remove_file(&self.file);
    }

    fn read(&self) -> Vec<RestartCounts> {
        // The folder is everybody's: what is there may be a pipe, too.
        let is_file = fs::symlink_metadata(&self.file).is_ok_and(|found| found.is_file());
        is_file
            .then(|| fs::read(&self.file).ok())
            .flatten()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default()
    }

    fn write(&self, links: &[RestartCounts]) -> io::Result<()> {
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

impl RestartCounts {
    fn is(&self, (way, component, name): LinkId<'_>) -> bool {
        self.way == way && self.component == component && self.name == name
    }

    fn is_worth_another(&self) -> bool {
        let gap = self.times.checked_sub(1).and_then(|ends| GAPS.get(ends));
        let since = self.latest.elapsed();
        // A clock that was put back says nothing.
        gap.is_some_and(|gap| since.is_ok_and(|since| since > *gap))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn of(folder: &Path, provider: &str) -> RestartHistory {
        let host_data = HostData {
            provider_key: provider.to_owned(),
            ..HostData::default()
        };
        RestartHistory::new(folder, &host_data)
    }

    fn in_words(text: &str) -> Vec<RestartCounts> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_link_is_worth_an_end_and_not_another_one_at_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(of(folder.path(), "p").may_restart((LinkDirection::FromComponent, "c", "default")));
        assert!(of(folder.path(), "p").note((LinkDirection::FromComponent, "c", "default")));
        assert!(!of(folder.path(), "p").may_restart((
            LinkDirection::FromComponent,
            "c",
            "default"
        )));
        assert!(of(folder.path(), "p").may_restart((LinkDirection::FromComponent, "c", "other")));
        assert!(of(folder.path(), "p").note((LinkDirection::FromComponent, "c", "other")));
        assert!(
            of(folder.path(), "q").may_restart((LinkDirection::FromComponent, "c", "default")),
            "another provider's"
        );
        of(folder.path(), "p").arrived((LinkDirection::ToComponent, "c", "default"));
        assert!(!of(folder.path(), "p").may_restart((
            LinkDirection::FromComponent,
            "c",
            "default"
        )));
        of(folder.path(), "p").arrived((LinkDirection::FromComponent, "c", "default"));
        assert!(of(folder.path(), "p").may_restart((LinkDirection::FromComponent, "c", "default")));
        assert!(!of(folder.path(), "p").may_restart((LinkDirection::FromComponent, "c", "other")));
        of(folder.path(), "p").forget();
        assert!(of(folder.path(), "p").may_restart((LinkDirection::FromComponent, "c", "other")));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_fetched_may_be_there_later() {
        let mut ends = RestartCounts {
            way: LinkDirection::FromComponent,
            component: "c".to_owned(),
            name: "default".to_owned(),
            times: 1,
            latest: SystemTime::now(),
        };
        for gap in GAPS {
            ends.latest = SystemTime::now() - gap + Duration::from_secs(10);
            assert!(!ends.is_worth_another(), "{ends:?}");
            ends.latest = SystemTime::now() - gap - Duration::from_secs(1);
            assert!(ends.is_worth_another(), "{ends:?}");
            ends.times += 1;
        }
        ends.latest = SystemTime::UNIX_EPOCH;
        assert!(!ends.is_worth_another(), "enough is enough");
        ends.times = 1;
        ends.latest = SystemTime::now() + GAPS[0] * 2;
        assert!(!ends.is_worth_another(), "from the future");
    }

    #[test]
    fn without_a_file_no_end_is_noted() {
        assert!(!of(Path::new("/nowhere"), "p").note((
            LinkDirection::FromComponent,
            "c",
            "default"
        )));
    }

    #[test]
    fn what_others_have_put_there_is_neither_followed_nor_believed() {
        let folder = tempfile::tempdir().unwrap();
        let ended_for = of(folder.path(), "p");
        let precious = folder.path().join("precious");
        fs::write(&precious, "[]").unwrap();
        symlink(&precious, &ended_for.file).unwrap();
        assert!(ended_for.note((LinkDirection::FromComponent, "c", "default")));
        assert!(!ended_for.may_restart((LinkDirection::FromComponent, "c", "default")));
        assert_eq!(fs::read_to_string(precious).unwrap(), "[]");
        let noted = fs::read_to_string(&ended_for.file).unwrap();
        assert_eq!(in_words(&noted).len(), 1);
        fs::write(&ended_for.file, "{").unwrap();
        assert!(ended_for.may_restart((LinkDirection::FromComponent, "c", "default")));
    }
}
