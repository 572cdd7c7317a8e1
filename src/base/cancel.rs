//! A flag that asks long work to stop at its next step.

use crate::error::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by the signal handler and every stage.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag nobody has raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once raised.
    ///
    /// # Errors
    /// [`Kind::Cancelled`] after [`Cancel::raise`].
    pub fn check(&self) -> Result<()> {
        if self.raised() { Err(Error::new(Kind::Cancelled, "interrupted")) } else { Ok(()) }
    }
}
