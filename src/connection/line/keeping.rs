//! Reads that may be kept, over one line: what Redis must agree to for that, and how it is asked.
//!
//! Without RESP3 and tracking a line works all the same, and nothing is kept. What Redis tells of
//! changes is for `tracking`.

use std::sync::{Arc, OnceLock};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, PushInfo, RedisResult, Value};

use super::log_in::resp3_login;
use super::{Line, NoLine, Reply, multiplexing};
use crate::connection::Target;
use crate::connection::dial::Duplex;
use crate::connection::request::Request;
use crate::connection::tracking::Tracking;
use crate::error::in_words;
use crate::task::AbortOnDrop;

/// Whether what is read over a line may be kept.
#[derive(Debug)]
pub(super) enum Keeping {
    /// Nobody asked for that.
    Unwanted,
    /// It may, as long as the server tells of changes.
    On {
        tracking: Arc<Tracking>,
        prover: OnceLock<AbortOnDrop>,
    },
    /// It may not.
    Refused(String),
}

impl Line {
    /// Takes over a stream, and has the server switch to the protocol in which it can tell of
    /// changes (RESP3). If the server refuses, answers why: it may take an ordinary log-in.
    pub(super) async fn that_is_told(
        stream: Box<dyn Duplex>,
        target: &Target,
        tracking: Arc<Tracking>,
    ) -> Result<Result<Self, String>, NoLine> {
        let login = resp3_login(target)?;
        let told = Arc::clone(&tracking);
        let config = multiplexing().set_push_sender(move |push: PushInfo| {
            told.heard(&push);
            Ok::<(), ()>(())
        });
        match MultiplexedConnection::new_with_config(&login, stream, config).await {
            Ok((commands, driver)) => {
                let keeping = Keeping::On {
                    tracking,
                    prover: OnceLock::new(),
                };
                Ok(Ok(Self::new(commands, driver, keeping)))
            }
            Err(error) => Ok(Err(format!(
                "the server refuses RESP3 (HELLO 3): {}",
                error.code().unwrap_or(error.category())
            ))),
        }
    }

    /// Has the server tell of changes of what is read from now on.
    pub(super) async fn begin_keeping(&self) -> Result<(), NoLine> {
        let Keeping::On { tracking, prover } = &self.keeping else {
            return Ok(());
        };
        // Of what was not asked for, the server is to remember nothing.
        for words in [&["TRACKING", "ON", "OPTIN"][..], &["CACHING", "YES"]] {
            let command = redis::cmd("CLIENT").arg(words).take();
            match self.send(&Request::One(command), false).await {
                Reply::Answer(_) => {}
                Reply::Refusal(refusal) => {
                    tracking.refused(in_words(&refusal));
                    return Ok(());
                }
                Reply::Lost => return Err(NoLine::hung_up()),
            }
        }
        let prove = Arc::clone(tracking).prove(self.commands.clone());
        let _ = prover.set(AbortOnDrop::spawn(prove));
        Ok(())
    }

    /// Who hears of changes of what is read over this line.
    pub fn tracking(&self) -> Option<&Tracking> {
        match &self.keeping {
            Keeping::On { tracking, .. } => Some(tracking),
            _ => None,
        }
    }

    /// Why nothing that is read over this line is kept, although it should be.
    pub fn keeps_nothing(&self) -> Option<&String> {
        match &self.keeping {
            Keeping::Unwanted => None,
            Keeping::On { tracking, .. } => tracking.refusal(),
            Keeping::Refused(reason) => Some(reason),
        }
    }

    /// The line is about to be replaced: what was read over it is not to be used any more.
    pub fn retire(&self) {
        if let Some(tracking) = self.tracking() {
            tracking.end();
        }
    }

    /// Asks for a value that is to be kept, with its time to live; for the value alone where the
    /// server would not tell of its change.
    pub(super) async fn kept(&self, commands: &Pipeline, asking: bool) -> RedisResult<Value> {
        let alone = |value| match value {
            Value::ServerError(_) => value,
            value => Value::Array(vec![value, Value::Nil]),
        };
        let tracking = self.tracking().filter(|t| t.vouch().is_some());
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
                tracking.refused(format!("{what}: {}", in_words(refusal)));
                self.suspect();
                return Ok(alone(value));
            }
        }
        Ok(Value::Array(vec![value, age]))
    }
}
