//! Commands about the connection or the server, which have no keys of components.

use redis::Cmd;

/// A command about the connection or the server.
#[derive(Clone, Copy)]
pub(crate) enum AdminCommand<'a> {
    Ping,
    /// Sent alone, it is refused: by the ACL, or because `MULTI` is missing.
    Exec,
    Auth {
        user: Option<&'a str>,
        password: &'a str,
    },
    Select {
        database: i64,
    },
    /// Allows reads from a replica of a cluster on this connection.
    ReadOnly,
    SetClientName(&'a str),
    SetClientInfo {
        attribute: &'a str,
        value: &'a str,
    },
    /// Enables client tracking for the reads that follow a [`Self::CachingYes`].
    TrackingOptIn,
    CachingYes,
    Role,
    Hello,
    WhoAmI,
    Info {
        section: &'a str,
    },
    ClusterSlots,
    ConfigGet(&'a str),
    ConfigSet {
        name: &'a str,
        value: &'a str,
    },
    SentinelPrimary {
        service: &'a str,
    },
    SentinelReplicas {
        service: &'a str,
    },
    /// A form of a command that is refused or changes nothing, see
    /// [`AclRule::trial`](crate::redis::command::spec::AclRule::trial).
    Trial(&'a [String]),
}

impl AdminCommand<'_> {
    pub(crate) fn pack(&self) -> Cmd {
        let mut command = Cmd::new();
        match self {
            Self::Ping => command.arg("PING"),
            Self::Exec => command.arg("EXEC"),
            Self::Auth { user, password } => command.arg("AUTH").arg(user).arg(password),
            Self::Select { database } => command.arg("SELECT").arg(database),
            Self::ReadOnly => command.arg("READONLY"),
            Self::SetClientName(name) => command.arg(&["CLIENT", "SETNAME", name]),
            Self::SetClientInfo { attribute, value } => {
                command.arg(&["CLIENT", "SETINFO", attribute, value])
            }
            Self::TrackingOptIn => command.arg(&["CLIENT", "TRACKING", "ON", "OPTIN"]),
            Self::CachingYes => command.arg(&["CLIENT", "CACHING", "YES"]),
            Self::Role => command.arg("ROLE"),
            Self::Hello => command.arg("HELLO"),
            Self::WhoAmI => command.arg(&["ACL", "WHOAMI"]),
            Self::Info { section } => command.arg(&["INFO", section]),
            Self::ClusterSlots => command.arg(&["CLUSTER", "SLOTS"]),
            Self::ConfigGet(name) => command.arg(&["CONFIG", "GET", name]),
            Self::ConfigSet { name, value } => command.arg(&["CONFIG", "SET", name, value]),
            Self::SentinelPrimary { service } => {
                command.arg(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", service])
            }
            Self::SentinelReplicas { service } => command.arg(&["SENTINEL", "REPLICAS", service]),
            Self::Trial(words) => command.arg(*words),
        };
        command
    }
}
