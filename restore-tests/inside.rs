//! A test repository opened in this process, to put into its regions what the program would never write.

use crate::harness::Bench;
use bytes::Bytes;
use holdfast::base::Env;
use holdfast::region::Address;
use holdfast::repo::Repo;
use holdfast::repo::open::{Opening, open};
use holdfast::store::Key;
use holdfast::unlock::Unlock;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// An open repository, and the runtime that serves it.
pub struct Inside {
    pub repo: Arc<Repo>,
    _runtime: Runtime,
}

impl Inside {
    /// Opens the bench's repository with the 32 bytes of a key file.
    pub fn with_key(bench: &Bench, key: [u8; 32]) -> Inside {
        Self::open(bench, &Unlock::KeyFile(key.into()))
    }

    /// Opens the bench's repository.
    pub fn open(bench: &Bench, secret: &Unlock) -> Inside {
        Self::at(bench, secret, &Env::system())
    }

    /// The same with another clock.
    pub fn at(bench: &Bench, secret: &Unlock, env: &Env) -> Inside {
        let runtime = Runtime::new().expect("runtime");
        let addresses: Vec<Address> = bench
            .regions
            .iter()
            .map(|name| Address { name: (*name).into(), place: bench.region(name).into() })
            .collect();
        let opening =
            Opening { addresses: &addresses, copies_min: 1, pin: None, state: None, env, handle: runtime.handle() };
        let repo = Arc::new(open(&opening, secret).expect("the repository opens"));
        Inside { repo, _runtime: runtime }
    }

    /// Puts an object into every region.
    pub fn put(&self, key: Key, bytes: Bytes) {
        let stored = self.repo.regions.put_all(self.repo.usable(), &key, &bytes);
        assert_eq!(stored, self.repo.usable(), "{key} could not be stored");
    }
}

/// Writes an object into a region's folder, whatever stands there, without touching other names of that file.
pub fn plant(region: &Path, object: &str, bytes: &[u8]) {
    let path = region.join(object);
    std::fs::create_dir_all(path.parent().expect("objects lie in folders")).expect("folder");
    let _ = std::fs::remove_file(&path);
    std::fs::write(path, bytes).expect("object");
}
