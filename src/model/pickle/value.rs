//! The values of a pickle, as symbols.

use super::bytes::Stop;
use super::names::Shape;
use super::numpy::Tuple;
use std::collections::HashMap;
use std::rc::Rc;

/// Most values on the stack, and in the memo.
pub const VALUES_MAX: usize = 1 << 20;

/// The items of a pickle that is to be one list.
#[derive(Default)]
pub struct Listed {
    /// In their order.
    pub items: Vec<Value>,
    /// How many lists were begun.
    pub lists: usize,
    /// It does more than that.
    pub strange: bool,
}

/// A value, as far as it matters.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Numbers, bytes, tuples, sets: nothing that is called or is a name.
    Plain,
    /// Text that may become a name.
    Text(Rc<String>),
    /// A small number.
    Number(u8),
    /// A tuple.
    Tuple(Tuple),
    /// What stands for a storage of PyTorch: the bytes of a number in it, and its key.
    Storage(u8, Rc<String>),
    /// A dictionary.
    Map,
    /// A list.
    List,
    /// What was loaded by its name, and was judged by it; what calling it gives.
    Global(Shape),
    /// What a call gave.
    Made(Shape),
}

impl Value {
    /// Two that differ only in what nobody is to go by are alike.
    pub fn is_like(&self, other: &Value) -> bool {
        let harmless = |value: &Value| match value {
            Value::Plain | Value::Number(_) => true,
            Value::Tuple(tuple) => !tuple.matters(),
            _ => false,
        };
        self == other || (harmless(self) && harmless(other))
    }
}

/// What a memo holds, by the numbers of its slots.
pub type Memo = HashMap<u64, Value>;

/// Puts a value into a slot, if there is room.
pub fn keep_in(memo: &mut Memo, slot: u64, value: Value) -> Result<(), Stop> {
    if memo.len() >= VALUES_MAX && !memo.contains_key(&slot) {
        return Err(Stop::Beyond("its memo, or that of the pickles before, is too large".into()));
    }
    memo.insert(slot, value);
    Ok(())
}

/// Whether this can be the name of something, or a dotted one.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.')
}
