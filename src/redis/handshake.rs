//! The handshake on a session: authentication, database, client name and role; and authentication
//! with a password that changes later.
//!
//! Not left to the redis crate, whose errors hide Redis's messages.

use std::fs;
use std::path::Path;

use redis::{ProtocolVersion, RedisConnectionInfo, Value};

use crate::error::os_message;
use crate::redis::command::admin::AdminCommand;
use crate::redis::connect_error::{ConnectError, ConnectErrorKind};
use crate::redis::options::ConnectOptions;
use crate::redis::selector::ServerSelector;
use crate::redis::session::{Session, SessionReply};
use crate::settings::secret::Secret;

/// Makes a new session ready for calls. Returns the password that it is authenticated with.
pub(crate) async fn handshake(
    session: &Session,
    options: &ConnectOptions,
    selector: &ServerSelector,
    client_name: &str,
) -> Result<Option<Secret>, ConnectError> {
    let address = &options.address;
    let password = password(options)?;
    authenticate(session, address.username.as_deref(), password.as_ref()).await?;
    if address.database != 0 {
        let database = i64::from(address.database);
        require_ok(session, AdminCommand::Select { database }).await?;
    }
    if matches!(selector, ServerSelector::ClusterReplica(_)) {
        require_ok(session, AdminCommand::ReadOnly).await?;
    }
    set_client_info(session, client_name).await?;
    if let Some(role) = selector.required_role() {
        verify_role(session, role).await?;
    }
    // Redis requires authentication only of the commands after AUTH, SELECT and CLIENT.
    match session.send(&AdminCommand::Ping.into(), false).await {
        SessionReply::ServerError(error) if error.code() == "NOAUTH" => {
            Err(ConnectError::server(&error))
        }
        SessionReply::Disconnected => Err(ConnectError::closed_during_handshake()),
        _ => Ok(password),
    }
}

/// Sends `AUTH`, if there is a user or a password.
pub(crate) async fn authenticate(
    session: &Session,
    username: Option<&str>,
    password: Option<&Secret>,
) -> Result<(), ConnectError> {
    // AUTH requires a password even of a user without one, and then accepts any.
    let password = match (username, password) {
        (None, None) => return Ok(()),
        (_, password) => password.map(Secret::reveal).unwrap_or_default(),
    };
    let auth = AdminCommand::Auth {
        user: username,
        password,
    };
    require_ok(session, auth).await
}

/// Authenticates again if the password has changed, and returns whether it has. Until the new
/// authentication succeeds, the server executes commands under the old one.
pub(crate) async fn refresh_auth(
    session: &Session,
    options: &ConnectOptions,
    current: &mut Option<Secret>,
) -> Result<bool, ConnectError> {
    let password = password(options)?;
    if password == *current {
        return Ok(false);
    }
    let username = options.address.username.as_deref();
    authenticate(session, username, password.as_ref()).await?;
    *current = password;
    Ok(true)
}

/// The credentials with which the redis crate opens a connection in RESP3 (`HELLO 3 AUTH`).
pub(crate) fn resp3_login(options: &ConnectOptions) -> Result<RedisConnectionInfo, ConnectError> {
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name();
    if let Some(username) = &options.address.username {
        // AUTH requires a password even of a user without one, and then accepts any.
        login = login.set_username(username).set_password("");
    }
    if let Some(password) = password(options)? {
        login = login.set_password(password.reveal());
    }
    Ok(login)
}

/// A client name that Redis accepts: printable ASCII without spaces.
pub(crate) fn client_name(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_graphic() { c } else { '_' })
        .collect()
}

/// Sets what operators see in `CLIENT LIST`. An old Redis or a strict ACL may refuse it.
async fn set_client_info(session: &Session, client_name: &str) -> Result<(), ConnectError> {
    for command in [
        AdminCommand::SetClientName(client_name),
        AdminCommand::SetClientInfo {
            attribute: "LIB-NAME",
            value: "kvredis",
        },
        AdminCommand::SetClientInfo {
            attribute: "LIB-VER",
            value: env!("CARGO_PKG_VERSION"),
        },
    ] {
        if let SessionReply::Disconnected = session.send(&command.into(), false).await {
            return Err(ConnectError::closed_during_handshake());
        }
    }
    Ok(())
}

/// Sentinels may still report a server that a failover has demoted.
async fn verify_role(session: &Session, required: &str) -> Result<(), ConnectError> {
    match session.send(&AdminCommand::Role.into(), false).await {
        SessionReply::Value(Value::Array(parts)) => match parts.first() {
            Some(Value::BulkString(role)) if role != required.as_bytes() => {
                let role = String::from_utf8_lossy(role);
                let message =
                    format!("the server that the sentinels name is a {role}, not the {required}");
                Err(ConnectError::new(ConnectErrorKind::WrongRole, message))
            }
            _ => Ok(()),
        },
        SessionReply::Disconnected => Err(ConnectError::closed_during_handshake()),
        // An ACL may forbid the command.
        _ => Ok(()),
    }
}

/// Sends a command without which the session is useless.
async fn require_ok(session: &Session, command: AdminCommand<'_>) -> Result<(), ConnectError> {
    match session.send(&command.into(), false).await {
        SessionReply::Value(_) => Ok(()),
        SessionReply::ServerError(error) => Err(ConnectError::server(&error)),
        SessionReply::Disconnected => Err(ConnectError::closed_during_handshake()),
    }
}

/// The current password: that of the file, if there is one.
fn password(options: &ConnectOptions) -> Result<Option<Secret>, ConnectError> {
    match &options.password_file {
        None => Ok(options.address.password.clone()),
        Some(path) => read_password(path).map(Some),
    }
}

fn read_password(path: &Path) -> Result<Secret, ConnectError> {
    let unusable = |reason: &str| {
        let message = format!("PASSWORD_FILE: cannot read {}: {reason}", path.display());
        ConnectError::new(ConnectErrorKind::PasswordFile, message)
    };
    let text = fs::read_to_string(path)
        .map_err(|error| unusable(&os_message(&error)).with_source(error))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(unusable("it is empty"));
    }
    Ok(Secret::from(password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_names_are_printable_ascii_without_spaces() {
        assert_eq!(client_name("kvredis:a b\n:ü"), "kvredis:a_b_:_");
    }
}
