//! The properties that all commands of a kind share: name, access, idempotency, and the ACL rules
//! that they need.
//!
//! `kvredis check` reads the ACL rules from here, and tries each in a form that changes nothing.

#[derive(Debug)]
pub(crate) struct CommandSpec {
    /// The name in traces and metrics.
    pub(crate) name: &'static str,
    pub(crate) access: Access,
    /// True if executing it twice has the effect of executing it once, so that it may be sent again
    /// when the connection was lost after it had been sent.
    pub(crate) idempotent: bool,
    /// The ACL rules that it needs, beside the one for its keys.
    pub(crate) acl: &'static [AclRule],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// A replica may execute it.
    Read,
    Write,
    /// It reads, but only the primary executes it: a `SCAN` cursor belongs to one server.
    PrimaryOnly,
}

/// An ACL rule, and a form of the command that is refused or changes nothing.
#[derive(Debug)]
pub(crate) struct AclRule {
    /// The rule, as `ACL SETUSER` accepts it.
    pub(crate) rule: &'static str,
    /// The form that changes nothing; [`KEY`] stands for a key that does not exist.
    pub(crate) trial: &'static [&'static str],
    pub(crate) access: Access,
    /// True if only links with a time to live need the rule.
    pub(crate) only_with_ttl: bool,
    /// True if the result is the same for every bucket.
    pub(crate) once: bool,
}

/// The place of the key in [`AclRule::trial`].
pub(crate) const KEY: &str = "KEY";

/// A script that no server knows, and one that does nothing.
const UNKNOWN_SCRIPT: &str = "0000000000000000000000000000000000000000";
const EMPTY_SCRIPT: &str = "return 1";

const fn read(rule: &'static str, trial: &'static [&'static str]) -> AclRule {
    AclRule {
        rule,
        trial,
        access: Access::Read,
        only_with_ttl: false,
        once: false,
    }
}

const fn write(rule: &'static str, trial: &'static [&'static str]) -> AclRule {
    AclRule {
        access: Access::Write,
        ..read(rule, trial)
    }
}

const GET_RULE: AclRule = read("+get", &["GET", KEY]);
const EXISTS_RULE: AclRule = read("+exists", &["EXISTS", KEY]);
const PTTL_RULE: AclRule = read("+pttl", &["PTTL", KEY]);
/// `NX` and `XX` are never true at once.
const SET_RULE: AclRule = write("+set", &["SET", KEY, "", "NX", "XX"]);
/// Deletes a key that does not exist.
const DEL_RULE: AclRule = write("+del", &["DEL", KEY]);
const EVAL_RULE: AclRule = write("+eval", &["EVAL", EMPTY_SCRIPT, "1", KEY]);
/// Alone it is refused; after `MULTI` it ends a transaction of no commands.
const EXEC_RULE: AclRule = AclRule {
    once: true,
    ..write("+exec", &["EXEC"])
};
const MULTI_RULE: AclRule = AclRule {
    once: true,
    ..write("+multi", &["MULTI"])
};
/// The rules of the script of `increment`, whose commands Redis checks one by one.
const INCREMENT_RULES: &[AclRule] = &[
    write("+evalsha", &["EVALSHA", UNKNOWN_SCRIPT, "1", KEY]),
    EVAL_RULE,
    // The script reads sums above 2^53 with it.
    GET_RULE,
    write("+incrby", &["INCRBY", KEY, "not a number"]),
    AclRule {
        only_with_ttl: true,
        access: Access::PrimaryOnly,
        ..read("+pttl", &["PTTL", KEY])
    },
    AclRule {
        only_with_ttl: true,
        ..write("+pexpire", &["PEXPIRE", KEY, "not a number"])
    },
];

pub(crate) const GET: CommandSpec = CommandSpec {
    name: "GET",
    access: Access::Read,
    idempotent: true,
    acl: &[GET_RULE],
};
/// A cached value must not outlive its key, therefore `PTTL`.
pub(crate) const CACHED_GET: CommandSpec = CommandSpec {
    name: "GET",
    access: Access::Read,
    idempotent: true,
    acl: &[PTTL_RULE],
};
pub(crate) const EXISTS: CommandSpec = CommandSpec {
    name: "EXISTS",
    access: Access::Read,
    idempotent: true,
    acl: &[EXISTS_RULE],
};
pub(crate) const PTTL: CommandSpec = CommandSpec {
    name: "PTTL",
    access: Access::Read,
    idempotent: true,
    acl: &[PTTL_RULE],
};
pub(crate) const SET: CommandSpec = CommandSpec {
    name: "SET",
    access: Access::Write,
    idempotent: true,
    acl: &[SET_RULE],
};
pub(crate) const DEL: CommandSpec = CommandSpec {
    name: "DEL",
    access: Access::Write,
    idempotent: true,
    acl: &[DEL_RULE],
};
pub(crate) const MGET: CommandSpec = CommandSpec {
    name: "MGET",
    access: Access::Read,
    idempotent: true,
    acl: &[read("+mget", &["MGET", KEY])],
};
pub(crate) const MSET: CommandSpec = CommandSpec {
    name: "MSET",
    access: Access::Write,
    idempotent: true,
    // The second key has no value.
    acl: &[write("+mset", &["MSET", KEY, "", KEY])],
};
pub(crate) const MSET_WITH_TTL: CommandSpec = CommandSpec {
    name: "MULTI SET",
    access: Access::Write,
    idempotent: true,
    acl: &[SET_RULE, EXEC_RULE, MULTI_RULE, EXEC_RULE],
};
pub(crate) const SCAN: CommandSpec = CommandSpec {
    name: "SCAN",
    access: Access::PrimaryOnly,
    idempotent: true,
    acl: &[AclRule {
        access: Access::PrimaryOnly,
        once: true,
        ..read("+scan", &["SCAN", "0", "MATCH", KEY, "COUNT", "1"])
    }],
};
pub(crate) const INCREMENT: CommandSpec = CommandSpec {
    name: "EVALSHA",
    access: Access::Write,
    idempotent: false,
    acl: INCREMENT_RULES,
};
pub(crate) const INCREMENT_IN_FULL: CommandSpec = CommandSpec {
    name: "EVAL",
    ..INCREMENT
};
pub(crate) const LEASE: CommandSpec = CommandSpec {
    name: "EVAL",
    access: Access::Write,
    idempotent: true,
    acl: &[EVAL_RULE, GET_RULE, SET_RULE, read("+pttl", &["PTTL", KEY])],
};
/// Commands about the connection or the server. A link works without these rules.
pub(crate) const ADMIN: CommandSpec = CommandSpec {
    name: "other",
    access: Access::PrimaryOnly,
    idempotent: true,
    acl: &[
        AclRule {
            once: true,
            access: Access::PrimaryOnly,
            ..read("+ping", &["PING"])
        },
        AclRule {
            once: true,
            access: Access::PrimaryOnly,
            ..read("+client|setname", &["CLIENT", "SETNAME", "kvredis:check"])
        },
        // For the `run_id`, without which a listing does not recognize a restarted server.
        AclRule {
            once: true,
            access: Access::PrimaryOnly,
            ..read("+info", &["INFO", "server"])
        },
    ],
};
