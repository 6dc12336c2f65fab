//! Calls to the store whose answer may have been lost are made again: with the same arguments, a write is
//! done once however often it is asked for.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::Error;

/// The pauses before the repetitions. Each is up to twice as long, so that processes that lost the same
/// server do not come back together.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(300)];
/// Calls that have taken this long together waited for a store that is not there.
const LONG: Duration = Duration::from_millis(2_500);

/// Makes `call`, and makes it again if it is not known what came of it.
pub(crate) async fn repeated<T, F>(mut call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let began = Instant::now();
    for pause in PAUSES {
        match call().await {
            Err(Error::Away(why)) if began.elapsed() < LONG => {
                tracing::debug!(why, "a call to the store got no answer and is repeated");
            }
            ended => return ended,
        }
        tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64())).await;
    }
    call().await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn away() -> Error {
        Error::Away("no answer".to_owned())
    }

    /// The result of calls of which the first `lost` are lost after `taking` this long, and how many there
    /// were.
    async fn ended(lost: u32, taking: Duration) -> (Result<u32, Error>, u32) {
        let calls = Cell::new(0);
        let result = repeated(|| async {
            calls.set(calls.get() + 1);
            tokio::time::sleep(taking).await;
            match calls.get() {
                call if call <= lost => Err(away()),
                call => Ok(call),
            }
        });
        (result.await, calls.get())
    }

    #[tokio::test(start_paused = true)]
    async fn what_got_no_answer_is_repeated_until_the_store_seems_to_be_gone() {
        let quick = Duration::from_millis(1);
        assert_eq!(ended(0, quick).await, (Ok(1), 1));
        assert_eq!(ended(2, quick).await, (Ok(3), 3));
        assert_eq!(ended(9, quick).await, (Err(away()), 3));
        let slow = Duration::from_secs(2);
        assert_eq!(ended(1, slow).await, (Ok(2), 2), "one answer was lost");
        assert_eq!(ended(9, slow).await, (Err(away()), 2));
    }

    #[tokio::test]
    async fn what_is_known_to_have_failed_is_not_repeated() {
        let calls = Cell::new(0);
        let failed = repeated(|| async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Error::Closed)
        });
        assert_eq!((failed.await, calls.get()), (Err(Error::Closed), 1));
    }
}
