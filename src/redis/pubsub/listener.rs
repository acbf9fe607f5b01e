//! The receiver of what Redis publishes.

use std::time::Duration;

/// A message as Redis published it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// The connection that it arrived on: messages of one connection are ordered.
    pub(crate) connection: u64,
    /// The subscribed pattern that the channel matches.
    pub(crate) pattern: &'a [u8],
    pub(crate) channel: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// A receiver of messages. It must not block.
pub(crate) trait Listener: Send + Sync + 'static {
    fn on_message(&self, message: Message<'_>);

    /// A node is subscribed again, or joined nodes that were subscribed before; messages that were
    /// published in the meantime are lost.
    fn on_gap(&self, address: &str, duration: Duration);
}

/// A listener that discards all messages.
pub(crate) struct NullListener;

impl Listener for NullListener {
    fn on_message(&self, _: Message<'_>) {}

    fn on_gap(&self, _: &str, _: Duration) {}
}
