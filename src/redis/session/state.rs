//! The state of a session, which every call reads and the supervisor waits for.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// The state of a session. Each state outranks those before it; only a suspicion can be withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum SessionState {
    Open,
    /// A command timed out: the supervisor must check whether the server replies at all.
    Suspected,
    /// The server has become a replica.
    Demoted,
    /// The connection broke: nothing that is sent now reaches the server.
    Closed,
}

/// A [`SessionState`] that every call reads and the supervisor waits for.
#[derive(Debug, Default)]
pub(super) struct StateCell {
    state: AtomicU8,
    raised: Notify,
}

impl StateCell {
    pub(super) fn load(&self) -> SessionState {
        // Acquire pairs with the release in `raise`: a task that sees `Closed` also sees the
        // revoked cache.
        match self.state.load(Ordering::Acquire) {
            0 => SessionState::Open,
            1 => SessionState::Suspected,
            2 => SessionState::Demoted,
            _ => SessionState::Closed,
        }
    }

    pub(super) fn raise(&self, state: SessionState) {
        if self.state.fetch_max(state as u8, Ordering::AcqRel) < state as u8 {
            // Only the supervisor waits; the permit is stored while it does not.
            self.raised.notify_one();
        }
    }

    pub(super) async fn next(&self) -> SessionState {
        loop {
            match self.load() {
                SessionState::Open => self.raised.notified().await,
                SessionState::Suspected => {
                    let withdrawn = self.state.compare_exchange(
                        SessionState::Suspected as u8,
                        SessionState::Open as u8,
                        Ordering::AcqRel,
                        Ordering::Acquire,
                    );
                    if withdrawn.is_ok() {
                        return SessionState::Suspected;
                    }
                }
                state => return state,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn suspicion_is_reported_once_and_closing_permanently() {
        let cell = StateCell::default();
        cell.raise(SessionState::Suspected);
        cell.raise(SessionState::Suspected);
        assert_eq!(cell.next().await, SessionState::Suspected);
        let waiting = tokio::time::timeout(Duration::from_secs(1), cell.next());
        assert!(waiting.await.is_err(), "the suspicion was taken back");
        cell.raise(SessionState::Demoted);
        cell.raise(SessionState::Suspected);
        assert_eq!(cell.next().await, SessionState::Demoted);
        cell.raise(SessionState::Closed);
        cell.raise(SessionState::Demoted);
        assert_eq!(cell.next().await, SessionState::Closed);
    }
}
