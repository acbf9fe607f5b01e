//! Hands calls to the rooms of their interfaces, and writes what they answer.

use tokio::time::Instant;

use super::call::{self, Call};
use super::wire::Writer;
use crate::error::Error;
use crate::link::Link;
use crate::telemetry::calls::Noted;
use crate::{atomics, batch, store};

/// Hands a call to the room of its interface, and writes its result.
pub async fn carry_out(link: &Link, call: Call<'_>, noted: &Noted, deadline: Instant) -> Writer {
    match call {
        Call::Get { bucket, key } => result(
            noted,
            store::get(link, bucket, key, deadline).await,
            call::value,
        ),
        Call::Set { bucket, key, value } => result(
            noted,
            store::set(link, bucket, key, value, deadline).await,
            call::unit,
        ),
        Call::Delete { bucket, key } => result(
            noted,
            store::delete(link, bucket, key, deadline).await,
            call::unit,
        ),
        Call::Exists { bucket, key } => result(
            noted,
            store::exists(link, bucket, key, deadline).await,
            call::bool,
        ),
        Call::ListKeys { bucket, cursor } => result(
            noted,
            store::list_keys(link, bucket, cursor, deadline).await,
            call::key_response,
        ),
        Call::Increment { bucket, key, delta } => result(
            noted,
            atomics::increment(link, bucket, key, delta, deadline).await,
            Writer::number,
        ),
        Call::GetMany { bucket, keys } => result(
            noted,
            batch::get_many(link, bucket, &keys, deadline).await,
            |writer, values| call::entries(writer, &keys, values),
        ),
        Call::SetMany { bucket, pairs } => result(
            noted,
            batch::set_many(link, bucket, &pairs, deadline).await,
            call::unit,
        ),
        Call::DeleteMany { bucket, keys } => result(
            noted,
            batch::delete_many(link, bucket, &keys, deadline).await,
            call::unit,
        ),
    }
}

/// The encoding of what came of a call, which is noted.
pub fn result<T>(
    noted: &Noted,
    outcome: Result<T, Error>,
    ok: impl FnOnce(&mut Writer, T),
) -> Writer {
    if let Err(error) = &outcome {
        noted.failed(error);
    }
    call::result(outcome, ok)
}
