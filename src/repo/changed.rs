//! Whether the keys were changed while a program is at work.

use super::{Repo, SMALL_OBJECT_BYTES_MAX};
use crate::base::ConfigNo;
use crate::error::{Error, Kind, Result};
use crate::format::FormatError;
use crate::format::config::Config;
use crate::store::{Key, Prefix};

/// Whether the configuration that the repository was opened with is still the newest. With an older one, what was signed
/// since with other keys is taken for junk, an epoch too.
///
/// # Errors
/// The keys were changed meanwhile, or nobody can tell.
pub fn keys_stand(repo: &Repo) -> Result<()> {
    let next = ConfigNo(repo.config.0.saturating_add(1));
    let owner = repo.ring.owner().verify_key();
    let before = repo.usable();
    let listed = repo.regions.listed(before, Prefix::Config);
    if repo.usable() != before {
        return Err(Error::new(Kind::Retry, "a region failed while it was asked whether the keys were changed")
            .advise("run again once it answers"));
    }
    for (key, at) in listed {
        if !matches!(key, Key::Config(number, _) if number == next) {
            continue;
        }
        for ix in at.iter() {
            let bytes = match repo.regions.get(ix, &key, SMALL_OBJECT_BYTES_MAX) {
                // Whoever cannot look does not know that they stand.
                Err(e) if e.kind() == Kind::Retry => return Err(e),
                Err(_) => continue,
                Ok(bytes) => bytes,
            };
            let read = Config::from_object(&bytes, &repo.id, next, &repo.config_digest, &owner);
            if matches!(read, Ok(_) | Err(FormatError::Newer(_))) {
                let what = "the keys of the repository were changed while this program was at work";
                return Err(Error::new(Kind::Retry, what).advise("run again: it then goes by the new ones"));
            }
        }
    }
    Ok(())
}
