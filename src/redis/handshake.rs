//! The log-in on one line: user and password, database, name and role, and the password that changes
//! later.
//!
//! Done here rather than by the redis crate, for errors in Redis's words.

use std::fs;
use std::path::Path;

use redis::{Cmd, ProtocolVersion, RedisConnectionInfo, Value};

use crate::error::os_message;
use crate::redis::command::Request;
use crate::redis::connect_error::{ConnectError, ConnectErrorKind};
use crate::redis::options::ConnectOptions;
use crate::redis::resolve::ServerSelector;
use crate::redis::server_error::in_words;
use crate::redis::server_error::is_transient;
use crate::redis::session::{Session, SessionReply};
use crate::settings::secret::Secret;

impl Session {
    pub(crate) async fn log_in(
        &self,
        target: &ConnectOptions,
        place: &ServerSelector,
        name: &str,
    ) -> Result<(), ConnectError> {
        let address = &target.address;
        let password = password(target)?;
        self.authenticate(address.username.as_deref(), password.as_ref())
            .await?;
        if address.database != 0 {
            self.require_ok(redis::cmd("SELECT").arg(address.database).take())
                .await?;
        }
        if matches!(place, ServerSelector::ClusterReplica(_)) {
            self.require_ok(redis::cmd("READONLY")).await?;
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
            if let SessionReply::Disconnected = self.send(&Request::One(client), false).await {
                return Err(ConnectError::hung_up());
            }
        }
        if let Some(role) = place.role() {
            self.verify_role(role).await?;
        }
        // Redis asks for a password only when a command comes.
        match self.send(&Request::One(redis::cmd("PING")), false).await {
            SessionReply::ServerError(refusal) if refusal.code() == "NOAUTH" => {
                Err(ConnectError::refused(&refusal))
            }
            SessionReply::Disconnected => Err(ConnectError::hung_up()),
            _ => Ok(()),
        }
    }

    /// Logs in, if there is somebody to log in as.
    ///
    /// # Errors
    ///
    /// Redis refuses, or the connection broke.
    pub(crate) async fn authenticate(
        &self,
        user: Option<&str>,
        password: Option<&Secret>,
    ) -> Result<(), ConnectError> {
        let mut auth = redis::cmd("AUTH");
        match (user, password.map(Secret::reveal)) {
            // A user without a password is asked for one all the same, and takes any.
            (Some(user), password) => auth.arg(user).arg(password.unwrap_or_default()),
            (None, Some(password)) => auth.arg(password),
            (None, None) => return Ok(()),
        };
        self.require_ok(auth).await?;
        *self.password.lock() = password.cloned();
        Ok(())
    }

    /// Logs in again, if the password is another one by now. The server goes on taking commands
    /// under the old log-in until the new one has succeeded.
    ///
    /// # Errors
    ///
    /// The password cannot be read, or Redis does not take it (yet).
    pub(crate) async fn refresh_auth(&self, target: &ConnectOptions) -> Result<bool, ConnectError> {
        let new = password(target)?;
        let old = self.password.lock().clone();
        if new == old {
            return Ok(false);
        }
        self.authenticate(target.address.username.as_deref(), new.as_ref())
            .await?;
        Ok(true)
    }

    /// What the sentinels named may have become something else since.
    async fn verify_role(&self, role: &str) -> Result<(), ConnectError> {
        match self.send(&Request::One(redis::cmd("ROLE")), false).await {
            SessionReply::Value(Value::Array(parts)) => match parts.first() {
                Some(Value::BulkString(is)) if is != role.as_bytes() => {
                    let is = String::from_utf8_lossy(is);
                    let words =
                        format!("the server that the sentinels name is a {is}, not the {role}");
                    Err(ConnectError::new(ConnectErrorKind::WrongRole, words))
                }
                _ => Ok(()),
            },
            SessionReply::Disconnected => Err(ConnectError::hung_up()),
            // An ACL may forbid the question.
            _ => Ok(()),
        }
    }

    /// Sends a command without which the connection is of no use.
    async fn require_ok(&self, command: Cmd) -> Result<(), ConnectError> {
        match self.send(&Request::One(command), false).await {
            SessionReply::Value(_) => Ok(()),
            SessionReply::ServerError(refusal) if is_transient(refusal.code()) => Err(
                ConnectError::new(ConnectErrorKind::NotReady, in_words(&refusal)),
            ),
            SessionReply::ServerError(refusal) => Err(ConnectError::refused(&refusal)),
            SessionReply::Disconnected => Err(ConnectError::hung_up()),
        }
    }
}

/// What the redis crate logs in with, where the server is to speak RESP3 from the beginning.
///
/// # Errors
///
/// There is no password, although there should be one.
pub(crate) fn resp3_login(target: &ConnectOptions) -> Result<RedisConnectionInfo, ConnectError> {
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
pub(crate) fn password(target: &ConnectOptions) -> Result<Option<Secret>, ConnectError> {
    match &target.password_file {
        None => Ok(target.address.password.clone()),
        Some(path) => read_password(path).map(Some),
    }
}

fn read_password(path: &Path) -> Result<Secret, ConnectError> {
    let unusable = |words: &str| {
        let words = format!("PASSWORD_FILE: cannot read {}: {words}", path.display());
        ConnectError::new(ConnectErrorKind::PasswordFile, words)
    };
    let text = fs::read_to_string(path).map_err(|error| unusable(&os_message(&error)))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(unusable("it is empty"));
    }
    Ok(Secret::from(password.to_owned()))
}
