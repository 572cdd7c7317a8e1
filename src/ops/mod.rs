//! The operations, one file each: what the command line, and later the daemon and the API, can ask for.
//! Here sources and repositories meet. No object key is built here but through `store::Key`.

mod ahead;
pub mod back_in_time;
pub mod backup;
pub mod browse;
pub mod catch_up;
pub mod compare;
pub mod complete;
pub mod copy;
pub mod difference;
pub mod doctor;
pub mod etcd;
pub mod find;
pub mod forget;
pub mod harm;
pub mod hold;
pub mod ledger;
pub mod live;
pub mod membership;
pub mod model;
pub mod model_check;
pub mod not_begun;
pub mod prune;
pub mod record;
pub mod repair;
pub mod repair_index;
pub mod replicate;
pub mod restore;
pub mod restore_bucket;
pub mod retain;
pub mod scrub;
pub mod side_by_side;
pub mod stats;
pub mod status;
pub mod tag;
pub mod tar;
pub mod verify;
