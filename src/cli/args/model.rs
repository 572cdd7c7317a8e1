//! Arguments of `holdfast model`.

use super::Filter;
use clap::{Args as ClapArgs, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
pub struct Model {
    #[command(subcommand)]
    pub verb: ModelVerb,
}

/// What to do with a model.
#[derive(Debug, Subcommand)]
pub enum ModelVerb {
    /// List the tensors in files
    Ls(ModelLs),
    /// Show which tensors of two models differ
    Diff(ModelDiff),
    /// Judge files: what loading them would do, and whether hashes and signatures hold
    Check(ModelCheck),
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Pickles are found by what files hold, and are read, never loaded: safe, unknown, unsafe, or - where there is none. Unknown is not safe. \
Signatures are those of OpenSSF Model Signing (model.sig), checked off-line.\n\nExit codes: 0 all is known to be harmless, and as it was signed and listed · \
3 something is unknown, or could not be read · 5 something is unsafe, or not as it was signed, listed or, with --again, hashed; \
or it is lost"
)]
pub struct ModelCheck {
    /// Files, or folders of them
    #[arg(required_unless_present = "snapshot", value_name = "PATH")]
    pub path: Vec<PathBuf>,
    /// The verdicts that stand in this snapshot of models instead: digits of an id, or `latest`; needs the repository
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "path")]
    pub snapshot: Option<OsString>,
    /// Read the files of the snapshot and judge them anew, by what this program knows, instead of showing what is recorded;
    /// say what is recorded otherwise
    #[arg(long, requires = "snapshot")]
    pub again: bool,
    #[command(flatten)]
    pub filter: Filter,
    /// A public key (PEM) whose signatures are believed; repeat for more. Each folder must then be signed
    #[arg(long, value_name = "FILE")]
    pub signature_key: Vec<PathBuf>,
    /// Certificates (PEM) of authorities that vouch for signers; repeat for more. Each folder must then be signed
    #[arg(long, value_name = "FILE")]
    pub signature_chain: Vec<PathBuf>,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Files are known by what they hold: safetensors, GGUF, PyTorch, ONNX, NumPy. Nothing in them is executed. With --json a line \
a file.\n\nExit codes: 0 done · 3 a file could not be read, or begins like a model and is none"
)]
pub struct ModelLs {
    /// Files, or folders of them
    #[arg(required = true, value_name = "PATH")]
    pub path: Vec<PathBuf>,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Tensors are compared by name, whatever file, container and order they stand in. Signs: + added · - removed · M other \
bytes, type or shape · ? not compared.\n\nExit codes: 0 done, whatever differs · 3 a file begins like a model and is none"
)]
pub struct ModelDiff {
    /// A file or a folder
    pub old: PathBuf,
    /// What it is compared with
    pub new: PathBuf,
}

/// Some tensors of a model in a snapshot.
#[derive(Debug, ClapArgs)]
pub struct TensorTarget {
    /// Only the tensors of this name, as one file of safetensors in the directory of --target, or --to; `*` stands for any signs,
    /// `?` for one; repeat for more. SNAPSHOT:PATH is a file of a model, its *.index.json, or the folder of that
    #[arg(long, value_name = "NAME", help_heading = "Models", conflicts_with_all = ["tar", "delete", "include", "exclude", "no_owner", "no_xattrs", "no_devices", "etcd_data_dir", "into", "revision", "time", "check", "etcd_bin", "bump_revision"])]
    pub tensors: Vec<String>,
}
