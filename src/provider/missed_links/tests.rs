//! The history of restarts: when a restart is due, and the file.

use std::os::unix::fs::symlink;

use super::*;

fn history(folder: &Path, provider: &str) -> RestartHistory {
    let host_data = HostData {
        provider_key: provider.to_owned(),
        ..HostData::default()
    };
    RestartHistory::new(folder, &host_data)
}

fn link(name: &str) -> LinkId {
    LinkId::new(LinkDirection::FromComponent, "c", name)
}

#[test]
fn a_second_restart_for_a_link_is_not_due_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let of = |provider| history(folder.path(), provider);
    assert!(of("p").may_restart(&link("default")));
    of("p").record_restart(&link("default")).unwrap();
    assert!(!of("p").may_restart(&link("default")));
    assert!(of("p").may_restart(&link("other")));
    of("p").record_restart(&link("other")).unwrap();
    assert!(of("q").may_restart(&link("default")), "another provider");
    of("p").remove(&LinkId::new(LinkDirection::ToComponent, "c", "default"));
    assert!(!of("p").may_restart(&link("default")));
    of("p").remove(&link("default"));
    assert!(of("p").may_restart(&link("default")));
    assert!(!of("p").may_restart(&link("other")));
    of("p").clear();
    assert!(of("p").may_restart(&link("other")));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn further_restarts_are_due_after_growing_gaps_and_limited() {
    let mut record = RestartRecord {
        link: link("default"),
        restarts: 1,
        last: SystemTime::now(),
    };
    for gap in RESTART_GAPS {
        record.last = SystemTime::now() - gap + Duration::from_secs(10);
        assert!(!record.may_restart(), "{record:?}");
        record.last = SystemTime::now() - gap - Duration::from_secs(1);
        assert!(record.may_restart(), "{record:?}");
        record.restarts += 1;
    }
    record.last = SystemTime::UNIX_EPOCH;
    assert!(!record.may_restart(), "the last restart was the last one");
    record.restarts = 1;
    record.last = SystemTime::now() + RESTART_GAPS[0] * 2;
    assert!(!record.may_restart(), "a time in the future");
}

#[test]
fn a_restart_that_cannot_be_recorded_is_an_error() {
    let history = history(Path::new("/nowhere"), "p");
    assert!(history.record_restart(&link("default")).is_err());
}

#[test]
fn files_of_other_users_are_neither_followed_nor_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(folder.path(), "p");
    let precious = folder.path().join("precious");
    fs::write(&precious, "[]").unwrap();
    symlink(&precious, &history.file).unwrap();
    history.record_restart(&link("default")).unwrap();
    assert!(!history.may_restart(&link("default")));
    assert_eq!(fs::read_to_string(precious).unwrap(), "[]");
    let json = fs::read_to_string(&history.file).unwrap();
    let records: Vec<RestartRecord> = serde_json::from_str(&json).unwrap();
    assert_eq!(records.len(), 1);
    fs::write(&history.file, "{").unwrap();
    assert!(history.may_restart(&link("default")));
}
