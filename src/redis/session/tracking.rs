//! Reads that may be kept, over one line: what Redis must agree to for that, and how it is asked.
//!
//! Without RESP3 and tracking a line works all the same, and nothing is kept. What Redis tells of
//! changes is for `tracking`.

use std::sync::{Arc, OnceLock};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, PushInfo, RedisResult, ServerError, Value};

use crate::cache::read_through::Cache;
use crate::redis::client_tracking::ClientTracker;
use crate::redis::command::Request;
use crate::redis::connect_error::ConnectErrorKind;
use crate::redis::handshake::resp3_login;
use crate::redis::options::ConnectOptions;
use crate::redis::server_error::in_words;
use crate::redis::server_error::is_maxclients;
use crate::redis::server_error::is_transient;
use crate::redis::session::{ConnectError, Session, SessionReply, multiplexing};
use crate::redis::transport::{ServerAddr, dial};
use crate::settings::address::ServerSpec;
use crate::task::AbortOnDrop;

/// Whether what is read over a line may be kept.
#[derive(Debug)]
pub(crate) enum Tracking {
    /// Nobody asked for that.
    Off,
    /// It may, as long as the server tells of changes.
    On {
        tracking: Arc<ClientTracker>,
        prover: OnceLock<AbortOnDrop>,
    },
    /// It may not.
    Unsupported(String),
}

impl Session {
    /// Connects, and has the server switch to the protocol in which it can tell of changes (RESP3).
    /// If the server refuses, answers why: it may take an ordinary log-in.
    pub(crate) async fn open_with_tracking(
        site: &ServerAddr,
        target: &ConnectOptions,
        cache: &Arc<Cache>,
    ) -> Result<Result<Self, String>, ConnectError> {
        let login = resp3_login(target)?;
        let in_cluster = matches!(target.address.server, ServerSpec::Cluster { .. });
        let mut broke = false;
        loop {
            let stream = dial(site, target.tls()).await?;
            let tracking = Arc::new(ClientTracker::new(Arc::clone(cache), in_cluster));
            let told = Arc::clone(&tracking);
            let config = multiplexing().set_push_sender(move |push: PushInfo| {
                told.heard(&push);
                Ok::<(), ()>(())
            });
            let error = match MultiplexedConnection::new_with_config(&login, stream, config).await {
                Ok((commands, driver)) => {
                    let keeping = Tracking::On {
                        tracking,
                        prover: OnceLock::new(),
                    };
                    return Ok(Ok(Self::new(commands, driver, keeping)));
                }
                Err(error) => error,
            };
            // Any connection may break; who hangs up again does not know the command.
            if error.is_io_error() && !broke {
                broke = true;
                continue;
            }
            let code = error.code().unwrap_or(error.category());
            let reason = format!("the server refuses RESP3 (HELLO 3): {code}");
            return match error.into_server_errors().as_deref() {
                Some([(_, refusal), ..]) if is_passing(refusal) => Err(ConnectError::new(
                    ConnectErrorKind::NotReady,
                    in_words(refusal),
                )),
                _ => Ok(Err(reason)),
            };
        }
    }

    /// Has the server tell of changes of what is read from now on.
    pub(crate) async fn enable_tracking(&self) -> Result<(), ConnectError> {
        let Tracking::On { tracking, prover } = &self.keeping else {
            return Ok(());
        };
        // Of what was not asked for, the server is to remember nothing.
        for words in [&["TRACKING", "ON", "OPTIN"][..], &["CACHING", "YES"]] {
            let command = redis::cmd("CLIENT").arg(words).take();
            match self.send(&Request::One(command), false).await {
                SessionReply::Value(_) => {}
                SessionReply::ServerError(refusal) if is_passing(&refusal) => {
                    return Err(ConnectError::new(
                        ConnectErrorKind::NotReady,
                        in_words(&refusal),
                    ));
                }
                SessionReply::ServerError(refusal) => {
                    tracking.refused(in_words(&refusal));
                    return Ok(());
                }
                SessionReply::Disconnected => return Err(ConnectError::hung_up()),
            }
        }
        let prove = Arc::clone(tracking).prove(self.commands.clone());
        let _ = prover.set(AbortOnDrop::spawn(prove));
        Ok(())
    }

    /// Who hears of changes of what is read over this line.
    pub(crate) fn tracking(&self) -> Option<&ClientTracker> {
        match &self.keeping {
            Tracking::On { tracking, .. } => Some(tracking),
            _ => None,
        }
    }

    /// Why nothing that is read over this line is kept, although it should be.
    pub(crate) fn tracking_disabled_reason(&self) -> Option<&String> {
        match &self.keeping {
            Tracking::Off => None,
            Tracking::On { tracking, .. } => tracking.refusal(),
            Tracking::Unsupported(reason) => Some(reason),
        }
    }

    /// The line is about to be replaced: what was read over it is not to be used any more.
    pub(crate) fn retire(&self) {
        if let Some(tracking) = self.tracking() {
            tracking.end();
        }
    }

    /// Asks for a value that is to be kept, with its time to live; for the value alone where the
    /// server would not tell of its change.
    pub(crate) async fn kept(&self, commands: &Pipeline, asking: bool) -> RedisResult<Value> {
        let alone = |value| match value {
            Value::ServerError(_) => value,
            value => Value::Array(vec![value, Value::Nil]),
        };
        let tracking = self.tracking().filter(|t| t.freshness().is_some());
        let (Some(tracking), false) = (tracking, asking) else {
            let Some(get) = commands.cmd_iter().nth(1) else {
                return Ok(Value::Nil);
            };
            if !asking {
                return self.one(get).await.map(alone);
            }
            let mut guest = Pipeline::with_capacity(2);
            guest.cmd("ASKING");
            guest.add_command(get.clone());
            return self.last_of(&guest, 2).await.map(alone);
        };
        let answers = self
            .commands
            .clone()
            .send_packed_commands(commands, 0, commands.len())
            .await?;
        let Ok([told, value, age]) = <[Value; 3]>::try_from(answers) else {
            return Ok(Value::Nil);
        };
        if let Value::ServerError(refusal) = value {
            return Ok(Value::ServerError(refusal));
        }
        for (what, answer) in [("CLIENT CACHING", &told), ("PTTL", &age)] {
            if let Value::ServerError(refusal) = answer {
                // Without the one nobody would tell of its change, without the other it might
                // outlive its key.
                if !is_passing(refusal) {
                    tracking.refused(format!("{what}: {}", in_words(refusal)));
                    self.suspect();
                }
                return Ok(alone(value));
            }
        }
        Ok(Value::Array(vec![value, age]))
    }
}

/// Whether a refusal says nothing of what the server will answer later: it is not ready, has no
/// room for another client, or the slot of the key moves.
fn is_passing(refusal: &ServerError) -> bool {
    is_transient(refusal.code())
        || matches!(refusal.code(), "MOVED" | "ASK")
        || is_maxclients(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_passes_is_none_for_good() {
        for (words, expected) in [
            ("MOVED 12182 127.0.0.1:7000", true),
            ("ASK 12182 127.0.0.1:7000", true),
            ("CLUSTERDOWN Hash slot not served", true),
            ("LOADING Redis is loading the dataset in memory", true),
            ("MASTERDOWN Link with MASTER is down", true),
            ("BUSY Redis is busy running a script", true),
            ("TRYAGAIN Multiple keys request during rehashing", true),
            ("ERR max number of clients reached", true),
            (
                "ERR max number of clients + cluster connections reached",
                true,
            ),
            ("ERR unknown command 'PTTL'", false),
            (
                "NOPERM User ann has no permissions to run the 'pttl' command",
                false,
            ),
        ] {
            let answer = redis::parse_redis_value(format!("-{words}\r\n").as_bytes());
            let Ok(Value::ServerError(refusal)) = answer else {
                panic!("{words} is a refusal: {answer:?}");
            };
            assert_eq!(is_passing(&refusal), expected, "{words}");
        }
    }
}
