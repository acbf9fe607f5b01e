//! The state of the subscription at one node, and its transitions.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::redis::connect_error::Outage;

#[derive(Debug)]
pub(crate) enum SubscriptionState {
    /// The node has never been subscribed. A node that joins others has keys that they published
    /// changes of before, so that its first subscription follows a gap.
    Pending { outage: Outage, joins_others: bool },
    Subscribed {
        since: Instant,
        /// The action required of an operator so that the node publishes all events.
        missing_flags: Option<String>,
    },
    /// The node was subscribed before.
    Lost { outage: Outage },
}

/// The start of a subscription.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subscribed {
    pub(crate) is_reconnect: bool,
    /// The time during which messages may have been lost.
    pub(crate) gap: Option<Duration>,
}

impl SubscriptionState {
    pub(crate) fn pending(reason: String, joins_others: bool) -> Self {
        Self::Pending {
            outage: outage(reason),
            joins_others,
        }
    }

    pub(crate) fn subscribe(&mut self) -> Subscribed {
        let subscribed = Self::Subscribed {
            since: Instant::now(),
            missing_flags: None,
        };
        let (is_reconnect, gap_since) = match std::mem::replace(self, subscribed) {
            Self::Pending {
                outage,
                joins_others,
            } => (false, joins_others.then_some(outage.since)),
            Self::Lost { outage } => (true, Some(outage.since)),
            Self::Subscribed { .. } => (true, None),
        };
        Subscribed {
            is_reconnect,
            gap: gap_since.map(|since| since.elapsed()),
        }
    }

    /// Records the reason why the node is not subscribed. Returns how long it was subscribed, if it
    /// was until now.
    pub(crate) fn lose(&mut self, reason: String) -> Option<Duration> {
        match self {
            Self::Pending { outage, .. } | Self::Lost { outage } => {
                outage.error = error(reason);
                None
            }
            Self::Subscribed { since, .. } => {
                let uptime = since.elapsed();
                *self = Self::Lost {
                    outage: outage(reason),
                };
                Some(uptime)
            }
        }
    }

    /// Records missing flags. Returns true if they have changed.
    pub(crate) fn set_missing_flags(&mut self, missing: Option<String>) -> bool {
        match self {
            Self::Subscribed { missing_flags, .. } if *missing_flags != missing => {
                *missing_flags = missing;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn since(&self) -> Option<Instant> {
        match self {
            Self::Subscribed { since, .. } => Some(*since),
            Self::Pending { .. } | Self::Lost { .. } => None,
        }
    }

    pub(crate) fn outage(&self) -> Option<&Outage> {
        match self {
            Self::Pending { outage, .. } | Self::Lost { outage } => Some(outage),
            Self::Subscribed { .. } => None,
        }
    }

    pub(crate) fn missing_flags(&self) -> Option<&String> {
        match self {
            Self::Subscribed { missing_flags, .. } => missing_flags.as_ref(),
            _ => None,
        }
    }
}

fn outage(reason: String) -> Outage {
    Outage {
        since: Instant::now(),
        error: error(reason),
    }
}

fn error(reason: String) -> Error {
    Error::new(ErrorKind::Unreachable, reason)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_subscription_after_a_loss_follows_a_gap() {
        let mut state = SubscriptionState::pending("not connected yet".to_owned(), false);
        assert_eq!(state.lose("refused".to_owned()), None);
        let first = Subscribed {
            is_reconnect: false,
            gap: None,
        };
        assert_eq!(state.subscribe(), first);
        let second = Duration::from_secs(1);
        advance(second).await;
        assert_eq!(state.lose("broken".to_owned()), Some(second));
        assert_eq!(state.lose("refused".to_owned()), None);
        assert!(state.outage().is_some());
        advance(second).await;
        let again = Subscribed {
            is_reconnect: true,
            gap: Some(second),
        };
        assert_eq!(state.subscribe(), again);
        assert!(state.outage().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_subscription_at_a_node_that_joins_others_follows_a_gap() {
        let mut state = SubscriptionState::pending("not connected yet".to_owned(), true);
        let first = Subscribed {
            is_reconnect: false,
            gap: Some(Duration::ZERO),
        };
        assert_eq!(state.subscribe(), first);
    }

    #[tokio::test(start_paused = true)]
    async fn changed_flags_are_reported_once_and_reset_with_the_subscription() {
        let mut state = SubscriptionState::pending("not connected yet".to_owned(), false);
        state.subscribe();
        let missing = || Some("run CONFIG SET".to_owned());
        assert!(state.set_missing_flags(missing()));
        assert!(!state.set_missing_flags(missing()));
        assert_eq!(state.missing_flags(), missing().as_ref());
        state.lose("broken".to_owned());
        assert_eq!(state.missing_flags(), None);
    }
}
