//! Arguments that say what is asked of models.

use crate::policy::{PickleRule, SignatureRule, Trust};
use clap::{Args as ClapArgs, ValueEnum};
use std::path::PathBuf;

/// What is asked of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SignatureArg {
    /// Each file is signed by who is believed, and is as it was signed; anything else is refused
    Require,
    /// What is wrong is said
    Warn,
    /// Nothing
    Off,
}

/// What is asked of pickles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PickleArg {
    /// What is not known to be harmless is refused: unsafe and unknown ones
    Refuse,
    /// Unsafe ones are said
    Warn,
    /// Nothing
    Off,
}

/// What is asked of models, and who is believed.
#[derive(Debug, ClapArgs)]
pub struct TrustArgs {
    /// What is asked of the signatures of models [default: warn]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Models")]
    pub trust_signature: Option<SignatureArg>,
    /// What is asked of pickles in models [default: warn]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Models")]
    pub trust_pickle: Option<PickleArg>,
    /// A public key (PEM) whose signatures are believed; repeat for more
    #[arg(long, value_name = "FILE", help_heading = "Models")]
    pub trust_key: Vec<PathBuf>,
    /// Certificates (PEM) of authorities that vouch for signers; repeat for more
    #[arg(long, value_name = "FILE", help_heading = "Models")]
    pub trust_chain: Vec<PathBuf>,
}

impl TrustArgs {
    /// Whether anything was said.
    pub fn is_given(&self) -> bool {
        let files = self.trust_key.len().saturating_add(self.trust_chain.len());
        self.trust_signature.is_some() || self.trust_pickle.is_some() || files > 0
    }

    /// What was said, and the defaults of the rest.
    pub fn trust(&self) -> Trust {
        Trust {
            signature: self.trust_signature.map_or_else(SignatureRule::default, |rule| match rule {
                SignatureArg::Require => SignatureRule::Require,
                SignatureArg::Warn => SignatureRule::Warn,
                SignatureArg::Off => SignatureRule::Off,
            }),
            pickle: self.trust_pickle.map_or_else(PickleRule::default, |rule| match rule {
                PickleArg::Refuse => PickleRule::Refuse,
                PickleArg::Warn => PickleRule::Warn,
                PickleArg::Off => PickleRule::Off,
            }),
            keys: self.trust_key.clone(),
            chains: self.trust_chain.clone(),
        }
    }
}

/// What is asked of models before they are restored.
#[derive(Debug, ClapArgs)]
pub struct RestoreTrust {
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Restore models although their snapshot was refused when it was made, or is by these options
    #[arg(long, help_heading = "Models")]
    pub trust_anyway: bool,
}
