//! Models: what is in their files, and in which tensors two of them differ, on this machine; and in snapshots, of which
//! single tensors come back, and where a model is suddenly another one.

mod alike;
mod between;
mod compare;
mod files;
mod forms;
mod owners;
mod pick;
mod stored;
mod sudden;

pub use between::{Between, ModelsReport};
pub use compare::{Change, Difference, Report, Side, compare};
pub use files::{Holding, files, look};
pub use pick::{PickRequest, Picked, PickedTensor, pick};
pub use stored::look_into;
pub use sudden::{Compared, Counts, Sudden, is_of_a_model, sudden};
