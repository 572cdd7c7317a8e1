//! Removing an object for good. Where a bucket keeps old versions, a plain deletion would only hide it: then the version
//! that is shown is removed, or the object stays as it is, and listed, until its lock ends.

use super::ask::{Ask, retained_until};
use super::bucket::Bucket;
use super::error::{StoreError, StoreErrorKind};
use super::key::Key;
use super::{Backend, Store};

/// So many versions of an object are removed: each uncovers the one before it, which may be damage that was repaired.
const VERSIONS_MAX: usize = 64;

impl Store {
    /// Removes an object, and gives its space back; one that is not there is removed already.
    ///
    /// # Errors
    /// The store refused, and says until when if it is locked; or it cannot be reached.
    pub async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let Backend::Bucket(bucket) = &self.backend else { return self.delete(key).await };
        if !bucket.asks() {
            return self.delete(key).await;
        }
        for removed in 0..VERSIONS_MAX {
            match bucket.version(key).await {
                Ok((path, Some(version))) => remove_version(bucket, key, path, version).await?,
                Ok((_, None)) => return self.delete(key).await,
                Err(e) if e.kind == StoreErrorKind::NotFound => return Ok(()),
                // Who may not list everything is not told that something is gone, but that it is forbidden.
                Err(e) if e.kind == StoreErrorKind::Denied && removed > 0 => return Ok(()),
                Err(e) => return Err(e),
            }
            // A doomed pack that is shown again is removed again by the next prune; there are many of them.
            if let Key::Pack(_) = key {
                return Ok(());
            }
        }
        let detail = format!("it was removed {VERSIONS_MAX} times, and an older version is still shown");
        Err(StoreError::new(StoreErrorKind::Failed, "remove", &key.path(), detail))
    }
}

async fn remove_version(bucket: &Bucket, key: &Key, path: String, version: String) -> Result<(), StoreError> {
    match bucket.ask(&Ask::DeleteVersion(path.clone(), version.clone())).await {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(e)) if e.kind == StoreErrorKind::NotFound => Ok(()),
        Some(Err(e)) if e.kind == StoreErrorKind::Denied => {
            let said = bucket.ask(&Ask::Retention(path, version)).await.and_then(Result::ok);
            match said.as_ref().and_then(|answer| retained_until(&answer.text)) {
                Some(until) => {
                    let detail = format!("it is locked until {until}");
                    let e = StoreError::new(StoreErrorKind::Denied, "remove", &key.path(), detail);
                    Err(e.advise("it is tried again by every later prune"))
                }
                None => Err(e),
            }
        }
        Some(Err(e)) => Err(e),
    }
}
