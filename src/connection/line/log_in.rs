//! The log-in on one line: user and password, database, name and role, and the password that changes
//! later.
//!
//! Done here rather than by the redis crate, for errors in Redis's words.

use std::fs;
use std::path::Path;
use std::sync::PoisonError;

use redis::{Cmd, ProtocolVersion, RedisConnectionInfo, Value};

use super::{Line, Reply};
use crate::connection::Target;
use crate::connection::no_line::{Cause, NoLine};
use crate::connection::node::passes;
use crate::connection::place::Place;
use crate::connection::request::Request;
use crate::error::{in_words, os_words};
use crate::settings::Secret;

impl Line {
    pub(super) async fn log_in(
        &self,
        target: &Target,
        place: &Place,
        name: &str,
    ) -> Result<(), NoLine> {
        let address = &target.address;
        let password = password(target)?;
        self.authenticate(address.username.as_deref(), password.as_ref())
            .await?;
        if address.database != 0 {
            self.insist(redis::cmd("SELECT").arg(address.database).take())
                .await?;
        }
        if matches!(place, Place::ClusterReplica(_)) {
            self.insist(redis::cmd("READONLY")).await?;
        }
        for (what, value) in [
            ("SETNAME", [Some(name), None]),
            ("SETINFO", [Some("LIB-NAME"), Some("kvredis")]),
            (
                "SETINFO",
                [Some("LIB-VER"), Some(env!("CARGO_PKG_VERSION"))],
            ),
        ] {
            let mut client = redis::cmd("CLIENT");
            client.arg(what).arg(&value[..]);
            // For whoever looks at Redis only: an old Redis or a strict ACL may refuse it.
            if let Reply::Lost = self.send(&Request::One(client), false).await {
                return Err(NoLine::hung_up());
            }
        }
        if let Some(role) = place.role() {
            self.insist_on_role(role).await?;
        }
        // Redis asks for a password only when a command comes.
        match self.send(&Request::One(redis::cmd("PING")), false).await {
            Reply::Refusal(refusal) if refusal.code() == "NOAUTH" => Err(NoLine::refused(&refusal)),
            Reply::Lost => Err(NoLine::hung_up()),
            _ => Ok(()),
        }
    }

    /// Logs in, if there is somebody to log in as.
    ///
    /// # Errors
    ///
    /// Redis refuses, or the connection broke.
    pub async fn authenticate(
        &self,
        user: Option<&str>,
        password: Option<&Secret>,
    ) -> Result<(), NoLine> {
        let mut auth = redis::cmd("AUTH");
        match (user, password.map(Secret::reveal)) {
            // A user without a password is asked for one all the same, and takes any.
            (Some(user), password) => auth.arg(user).arg(password.unwrap_or_default()),
            (None, Some(password)) => auth.arg(password),
            (None, None) => return Ok(()),
        };
        self.insist(auth).await?;
        *self.password.lock().unwrap_or_else(PoisonError::into_inner) = password.cloned();
        Ok(())
    }

    /// Logs in again, if the password is another one by now. The server goes on taking commands
    /// under the old log-in until the new one has succeeded.
    ///
    /// # Errors
    ///
    /// The password cannot be read, or Redis does not take it (yet).
    pub async fn keep_logged_in(&self, target: &Target) -> Result<bool, NoLine> {
        let new = password(target)?;
        let old = self
            .password
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if new == old {
            return Ok(false);
        }
        self.authenticate(target.address.username.as_deref(), new.as_ref())
            .await?;
        Ok(true)
    }

    /// What the sentinels named may have become something else since.
    async fn insist_on_role(&self, role: &str) -> Result<(), NoLine> {
        match self.send(&Request::One(redis::cmd("ROLE")), false).await {
            Reply::Answer(Value::Array(parts)) => match parts.first() {
                Some(Value::BulkString(is)) if is != role.as_bytes() => {
                    let is = String::from_utf8_lossy(is);
                    let words =
                        format!("the server that the sentinels name is a {is}, not the {role}");
                    Err(NoLine::new(Cause::WrongRole, words))
                }
                _ => Ok(()),
            },
            Reply::Lost => Err(NoLine::hung_up()),
            // An ACL may forbid the question.
            _ => Ok(()),
        }
    }

    /// Sends a command without which the connection is of no use.
    async fn insist(&self, command: Cmd) -> Result<(), NoLine> {
        match self.send(&Request::One(command), false).await {
            Reply::Answer(_) => Ok(()),
            Reply::Refusal(refusal) if passes(refusal.code()) => {
                Err(NoLine::new(Cause::NotReady, in_words(&refusal)))
            }
            Reply::Refusal(refusal) => Err(NoLine::refused(&refusal)),
            Reply::Lost => Err(NoLine::hung_up()),
        }
    }
}

/// What the redis crate logs in with, where the server is to speak RESP3 from the beginning.
///
/// # Errors
///
/// There is no password, although there should be one.
pub fn resp3_login(target: &Target) -> Result<RedisConnectionInfo, NoLine> {
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name();
    if let Some(user) = &target.address.username {
        // A user without a password is asked for one all the same, and takes any.
        login = login.set_username(user).set_password("");
    }
    if let Some(password) = password(target)? {
        login = login.set_password(password.reveal());
    }
    Ok(login)
}

/// The password as it is now: that of the file, if there is one.
///
/// # Errors
///
/// The file cannot be read, or is empty.
pub fn password(target: &Target) -> Result<Option<Secret>, NoLine> {
    match &target.password_file {
        None => Ok(target.address.password.clone()),
        Some(path) => read_password(path).map(Some),
    }
}

fn read_password(path: &Path) -> Result<Secret, NoLine> {
    let unusable = |words: &str| {
        let words = format!("PASSWORD_FILE: cannot read {}: {words}", path.display());
        NoLine::new(Cause::PasswordFile, words)
    };
    let text = fs::read_to_string(path).map_err(|error| unusable(&os_words(&error)))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(unusable("it is empty"));
    }
    Ok(Secret::from(password.to_owned()))
}
