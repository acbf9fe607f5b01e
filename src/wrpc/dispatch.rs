//! Hands calls to the rooms of their interfaces, and writes what they answer.

use tokio::time::Instant;

use crate::error::Error;
use crate::keyvalue::{atomics, batch, store};
use crate::link::Link;
use crate::telemetry::calls::CallSpan;
use crate::wrpc::codec::Writer;
use crate::wrpc::functions;
use crate::wrpc::functions::Call;

/// Hands a call to the room of its interface, and writes its result.
pub(crate) async fn carry_out(
    link: &Link,
    call: Call<'_>,
    noted: &CallSpan,
    deadline: Instant,
) -> Writer {
    match call {
        Call::Get { bucket, key } => result(
            noted,
            store::get(link, bucket, key, deadline).await,
            functions::value,
        ),
        Call::Set { bucket, key, value } => result(
            noted,
            store::set(link, bucket, key, value, deadline).await,
            functions::unit,
        ),
        Call::Delete { bucket, key } => result(
            noted,
            store::delete(link, bucket, key, deadline).await,
            functions::unit,
        ),
        Call::Exists { bucket, key } => result(
            noted,
            store::exists(link, bucket, key, deadline).await,
            functions::bool,
        ),
        Call::ListKeys { bucket, cursor } => result(
            noted,
            store::list_keys(link, bucket, cursor, deadline).await,
            functions::key_response,
        ),
        Call::Increment { bucket, key, delta } => result(
            noted,
            atomics::increment(link, bucket, key, delta, deadline).await,
            Writer::number,
        ),
        Call::GetMany { bucket, keys } => result(
            noted,
            batch::get_many(link, bucket, &keys, deadline).await,
            |writer, values| functions::entries(writer, &keys, values),
        ),
        Call::SetMany { bucket, pairs } => result(
            noted,
            batch::set_many(link, bucket, &pairs, deadline).await,
            functions::unit,
        ),
        Call::DeleteMany { bucket, keys } => result(
            noted,
            batch::delete_many(link, bucket, &keys, deadline).await,
            functions::unit,
        ),
    }
}

/// The encoding of what came of a call, which is noted.
pub(crate) fn result<T>(
    noted: &CallSpan,
    outcome: Result<T, Error>,
    ok: impl FnOnce(&mut Writer, T),
) -> Writer {
    if let Err(error) = &outcome {
        noted.failed(error);
    }
    functions::result(outcome, ok)
}
