//! Dispatches a call to the function of its interface.

use tokio::time::Instant;

use crate::error::Error;
use crate::keyvalue::call::{Call, Response};
use crate::keyvalue::{atomics, batch, store};
use crate::link::Link;

/// Executes a call over a link.
///
/// # Errors
///
/// Those of the function.
pub(crate) async fn dispatch<'a>(
    link: &Link,
    call: Call<'a>,
    deadline: Instant,
) -> Result<Response<'a>, Error> {
    Ok(match call {
        Call::Get { bucket, key } => {
            Response::Value(store::get(link, bucket, key, deadline).await?)
        }
        Call::Set { bucket, key, value } => {
            store::set(link, bucket, key, value, deadline).await?;
            Response::Unit
        }
        Call::Delete { bucket, key } => {
            store::delete(link, bucket, key, deadline).await?;
            Response::Unit
        }
        Call::Exists { bucket, key } => {
            Response::Exists(store::exists(link, bucket, key, deadline).await?)
        }
        Call::ListKeys { bucket, cursor } => {
            Response::Keys(store::list_keys(link, bucket, cursor, deadline).await?)
        }
        Call::Increment { bucket, key, delta } => {
            Response::Number(atomics::increment(link, bucket, key, delta, deadline).await?)
        }
        Call::GetMany { bucket, keys } => {
            let values = batch::get_many(link, bucket, &keys, deadline).await?;
            Response::Entries { keys, values }
        }
        Call::SetMany { bucket, pairs } => {
            batch::set_many(link, bucket, &pairs, deadline).await?;
            Response::Unit
        }
        Call::DeleteMany { bucket, keys } => {
            batch::delete_many(link, bucket, &keys, deadline).await?;
            Response::Unit
        }
    })
}
