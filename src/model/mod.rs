//! What is in a model file, judged from its bytes alone: nothing is executed, unpacked to a disk or asked of a network.
//!
//! - [`format`]: headers, and where tensors lie, told by what files hold and never by their names.
//! - [`names`]: patterns that choose tensors by their names.
//! - [`verdict`]: the words of a judgement, as they are shown and as they can be stored.
//! - [`recorded`]: a judgement as a snapshot keeps it beside a file.
//! - [`pickle`]: what would run if the file were loaded, by walking its opcodes.
//! - [`archive`]: where pickles hide: zip, tar, gzip, zlib, NumPy files, one in another.
//! - [`signature`]: OpenSSF Model Signing, off-line.
//!
//! Everything that is read is hostile: sizes are checked before they are believed, memory and steps are bounded, and
//! what could not be read wholly is *unknown*, which is never *safe*.

pub mod archive;
pub mod format;
pub mod names;
pub mod pickle;
pub mod recorded;
pub mod signature;
pub mod verdict;
